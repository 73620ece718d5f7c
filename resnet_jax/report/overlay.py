"""Lays over an image where a net looks, or the classes that it names; writes pictures."""

from pathlib import Path
from typing import Any

import cv2
import numpy as np

from resnet_jax.errors import writing

#: The least side of a picture, in pixels.
SIDE = 224


def overlay(pixels: np.ndarray, heat: np.ndarray) -> np.ndarray:
    """Returns the image, warmer where the map is high: uint8 RGB, enlarged by a whole factor to at least 224 pixels.

    Args:
      pixels: uint8 (height, width, 3) or (height, width, 1).
      heat: (rows, columns), 0 or more; its maximum is shown as the warmest, zeros leave the image as it is.
    """
    import matplotlib

    pixels = np.repeat(pixels, 3, axis=-1) if pixels.shape[-1] == 1 else pixels
    times = max(1, -(-SIDE // min(pixels.shape[:2])))
    large = pixels.repeat(times, axis=0).repeat(times, axis=1).astype(np.float32)
    height, width = large.shape[:2]
    relative = np.asarray(heat, np.float32) / max(float(np.max(heat)), 1e-30)
    share = np.clip(cv2.resize(relative, (width, height), interpolation=cv2.INTER_CUBIC), 0, 1)[..., None]
    colour = np.float32(matplotlib.colormaps["turbo"](share[..., 0])[..., :3] * 255)
    weight = 0.65 * share  # cold places keep the image's own colours
    return np.rint((1 - weight) * large + weight * colour).astype(np.uint8)


def class_colours(count: int) -> np.ndarray:
    """Returns the colours of PASCAL VOC's masks, uint8 (count, 3): black, dark red, dark green, ...

    A label's bits go in turn to red, green and blue, the lowest to the highest bit of each (the devkit's VOCcolormap).
    """
    labels = np.arange(count)
    colours = np.zeros((count, 3), np.uint8)
    for bit in range(8):
        for channel in range(3):
            colours[:, channel] |= (((labels >> (3 * bit + channel)) & 1) << (7 - bit)).astype(np.uint8)
    return colours


def colour_classes(pixels: np.ndarray, labels: np.ndarray, weight: float = 0.55) -> np.ndarray:
    """Returns the image with each pixel coloured by its class, uint8 RGB; class 0, the background, stays as it is.

    Args:
      pixels: uint8 (height, width, 3).
      labels: uint8 (height, width).
      weight: share of the colour.
    """
    colours = class_colours(256)[labels].astype(np.float32)
    mixed = np.rint((1 - weight) * pixels + weight * colours).astype(np.uint8)
    return np.where(labels[..., None] == 0, pixels, mixed)


def write_mask(path: str | Path, labels: np.ndarray) -> Path:
    """Writes labels, uint8 (height, width), as a PNG with `class_colours` for its palette.

    Raises:
      UserError: if the file cannot be written.
    """
    from PIL import Image

    image = Image.fromarray(labels)
    image.putpalette(class_colours(256).tobytes())
    return _save(path, image)


def write_png(path: str | Path, pixels: np.ndarray) -> Path:
    """Writes uint8 RGB pixels.

    Raises:
      UserError: if the file cannot be written.
    """
    from PIL import Image

    return _save(path, Image.fromarray(pixels))


def _save(path: str | Path, image: Any) -> Path:
    path = Path(path)
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        image.save(path, format="PNG")
    return path
