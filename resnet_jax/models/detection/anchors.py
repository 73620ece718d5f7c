"""Anchors: boxes of several sizes and shapes at every position of a feature map (Ren et al. 2015, section 3.1.1)."""

from collections.abc import Sequence

import numpy as np


def anchor_shapes(sizes: Sequence[float], ratios: Sequence[float]) -> np.ndarray:
    """Returns (width, height) of each anchor, (len(ratios) * len(sizes), 2): all sizes of the first ratio first.

    Args:
      sizes: square roots of the areas, in pixels.
      ratios: of height to width.
    """
    roots = np.sqrt(np.asarray(ratios, np.float64))[:, None]
    widths, heights = np.asarray(sizes) / roots, np.asarray(sizes) * roots
    return np.stack([widths.ravel(), heights.ravel()], axis=-1)


def grid_anchors(height: int, width: int, stride: int, shapes: np.ndarray, offset: float = 0.5) -> np.ndarray:
    """Returns the anchors of a feature map, float32 (height * width * len(shapes), 4): row by row.

    Args:
      height, width: of the feature map, in positions.
      stride: pixels from one position to the next.
      shapes: of `anchor_shapes`.
      offset: where in a position's square of `stride` pixels the centre is: in its middle, as in Caffe's code; 0 in
        torchvision's.
    """
    ys, xs = np.meshgrid(np.arange(height), np.arange(width), indexing="ij")
    centres = (np.stack([xs, ys], axis=-1).reshape(-1, 1, 2) + offset) * stride
    return np.concatenate([centres - shapes / 2, centres + shapes / 2], axis=-1).reshape(-1, 4).astype(np.float32)
