"""Resizes a photograph for a detector: as in training here, or as torchvision does."""

import math

import cv2
import numpy as np

from resnet_jax.data.detection.batches import resized_size
from resnet_jax.data.imagenet.decode import resize

#: The longer side in pixels, at most, of an image whose shorter one has 800 (`GeneralizedRCNNTransform`).
TORCHVISION_LONGEST = 1333 / 800


def resize_photograph(pixels: np.ndarray, shorter_side: int, resizing: str) -> np.ndarray:
    """Returns the image at the size that a detector sees.

    Args:
      pixels: uint8 (height, width, 3).
      shorter_side: in pixels, as far as the longer one allows.
      resizing: "area": means over areas, uint8, see `batches.resized_size`; "torchvision": linearly between the four
        pixels around each point, however much it shrinks, not rounded: float32 from 0 to 255, and sizes rounded down.
    """
    height, width = pixels.shape[:2]
    if resizing == "area":
        return resize(pixels, *resized_size(height, width, shorter_side))
    scale = min(shorter_side / min(height, width), TORCHVISION_LONGEST * shorter_side / max(height, width))
    size = max(1, math.floor(width * scale)), max(1, math.floor(height * scale))
    return cv2.resize(pixels.astype(np.float32), size, interpolation=cv2.INTER_LINEAR)
