"""Lays a map of where a net looks over the image that it was shown."""

from pathlib import Path

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


def write_png(path: str | Path, pixels: np.ndarray) -> Path:
    """Writes uint8 RGB pixels.

    Raises:
      UserError: if the file cannot be written.
    """
    from PIL import Image

    path = Path(path)
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(path, format="PNG")
    return path
