"""Draws boxes with their classes and scores over an image."""

from collections.abc import Sequence

import cv2
import numpy as np

from resnet_jax.report.overlay import SIDE

#: Colours of classes, RGB, one after another and then again (Okabe and Ito 2008, told apart by the colour-blind).
COLOURS = ((230, 159, 0), (86, 180, 233), (0, 158, 115), (204, 121, 167), (213, 94, 0), (0, 114, 178), (240, 228, 66))


def draw_boxes(
    pixels: np.ndarray, boxes: Sequence[Sequence[float]], labels: Sequence[int], texts: Sequence[str]
) -> np.ndarray:
    """Returns the image with boxes over it: uint8 RGB, enlarged by a whole factor to at least 224 pixels.

    Args:
      pixels: uint8 (height, width, 3).
      boxes: (x1, y1, x2, y2) of each, in pixels.
      labels: of each; they choose the colours.
      texts: of each, written into its upper left corner; empty: none.
    """
    times = max(1, -(-SIDE // min(pixels.shape[:2])))
    drawn = np.ascontiguousarray(pixels.repeat(times, axis=0).repeat(times, axis=1))
    line = max(1, round(min(drawn.shape[:2]) / 300))
    size = max(0.35, min(drawn.shape[:2]) / 1200)
    # The best is drawn last, over the others.
    for box, label, text in reversed(list(zip(boxes, labels, texts, strict=True))):
        x1, y1, x2, y2 = (round(float(value) * times) for value in box)
        colour = COLOURS[label % len(COLOURS)]
        cv2.rectangle(drawn, (x1, y1), (x2 - 1, y2 - 1), colour, line)
        if text:
            (width, height), below = cv2.getTextSize(text, cv2.FONT_HERSHEY_SIMPLEX, size, 1)
            top = max(0, y1)
            cv2.rectangle(drawn, (x1, top), (x1 + width + 2, top + height + below), colour, -1)
            cv2.putText(drawn, text, (x1 + 1, top + height + below // 2), cv2.FONT_HERSHEY_SIMPLEX, size, (0, 0, 0), 1,
                        cv2.LINE_AA)  # fmt: skip
    return drawn
