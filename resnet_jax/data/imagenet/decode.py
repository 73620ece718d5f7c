"""Boxes of image files, decoded and resized, and images that are encoded anew.

OpenCV resizes: the fastest in `python -m benchmarks input_pipeline`, and it releases the GIL. docs/input_pipeline.md
compares the ways to decode a box; `data.image_files` is what decodes whole images.
"""

import cv2
import numpy as np
import simplejpeg

from resnet_jax.data.image_files import decode, image_size, least_reduction, orientation
from resnet_jax.data.jpeg import cut_below, reduced, turbo

# One thread decodes one image: more threads inside OpenCV would slow the others down.
cv2.setNumThreads(0)

#: Scale up to which `resize_crop` shrinks with three taps.
_THREE_TAPS = 2.0

Box = tuple[float, float, float, float]


def decode_crop(data: bytes, box: Box, size: int) -> np.ndarray:
    """Decodes one box of an image at one size, antialiased, uint8 RGB, (size, size, 3).

    A JPEG is decoded at a half, a quarter or an eighth of its size where the box shrinks by as much. That moves the
    box's edges a little, which does not matter for random crops; `test_crops` uses the whole image.

    Rows below the box are not decoded where that gives the same pixels. Then damage inside a file may go unnoticed, as
    it does with Pillow and TensorFlow; a truncated file is noticed. An image that EXIF turns is decoded whole.

    Args:
      data: the file.
      box: (top, left, height, width) in pixels of the whole image; edges are rounded to pixels of the decoded image, so
        by up to four pixels at an eighth.
      size: pixels of a side.

    Raises:
      DecodeError: see `decode`.
    """
    height, width = image_size(data)
    reduce = reduction(box, size)
    if least_reduction(height, width) == 1 and orientation(data) == 1:
        short = cut_below(data, box[0] + box[2])
        if short is not data:
            try:
                pixels = turbo(short, reduce, strict=False)
            except ValueError:
                pass  # CMYK, or damaged; decoding the whole image tells which
            else:
                # The reduced whole image has a last row for the remainder, by which edges are rounded.
                scale = height / reduced((height, width), reduce)[0]
                return crop_resize(pixels, box, (pixels.shape[0] * scale, width), size)
    return crop_resize(decode(data, reduce), box, (height, width), size)


def reduction(box: Box, size: int) -> int:
    """Returns the largest reduction (1, 2, 4 or 8) at which a box can be decoded that is resized to `size`."""
    reduce = 1
    while reduce < 8 and min(box[2], box[3]) >= 2 * reduce * size:
        reduce *= 2
    return reduce


def crop_resize(pixels: np.ndarray, box: Box, whole: tuple[float, int], size: int) -> np.ndarray:
    """Crops and resizes a box of an image of size `whole`; `pixels` are the image or a reduced copy."""
    rows, columns = pixels.shape[:2]
    y, x = rows / whole[0], columns / whole[1]
    top, left = min(round(box[0] * y), rows - 1), min(round(box[1] * x), columns - 1)
    bottom = min(max(round((box[0] + box[2]) * y), top + 1), rows)
    right = min(max(round((box[1] + box[3]) * x), left + 1), columns)
    return resize_crop(pixels[top:bottom, left:right], size, size)


def resize(pixels: np.ndarray, height: int, width: int) -> np.ndarray:
    """Resizes by the mean over areas where it shrinks, linearly where it grows; uint8 (height, width, 3)."""
    if pixels.shape[:2] == (height, width):
        return pixels
    shrinks = pixels.shape[0] >= height and pixels.shape[1] >= width
    return cv2.resize(pixels, (width, height), interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR)


def resize_crop(pixels: np.ndarray, height: int, width: int) -> np.ndarray:
    """Resizes as `resize`, in a third of its time for scales up to 2: a filter of three taps, then linearly.

    Together both have the variance of the triangle filter by which Pillow and torchvision shrink: at a scale of s, its
    variance is s^2 / 6 square pixels, and that of linear interpolation 1 / 6.
    """
    scales = pixels.shape[1] / width, pixels.shape[0] / height
    if max(scales) > _THREE_TAPS:
        return resize(pixels, height, width)
    if max(scales) > 1:
        x, y = (_taps(scale) for scale in scales)
        pixels = cv2.sepFilter2D(pixels, -1, x, y, borderType=cv2.BORDER_REPLICATE)
    return cv2.resize(pixels, (width, height), interpolation=cv2.INTER_LINEAR)


def _taps(scale: float) -> np.ndarray:
    side = max(0.0, scale**2 - 1) / 12
    return np.array([side, 1 - 2 * side, side], np.float32)


def shrink(data: bytes, shorter_side: int, quality: int) -> bytes:
    """Encodes the image, upright, as a JPEG whose shorter side is at most `shorter_side` pixels."""
    pixels = decode(data)
    height, width = pixels.shape[:2]
    scale = shorter_side / min(height, width)
    if scale < 1:
        pixels = resize(pixels, max(1, round(height * scale)), max(1, round(width * scale)))
    return simplejpeg.encode_jpeg(np.ascontiguousarray(pixels), quality, "RGB", "420")
