"""Decodes image files to RGB pixels: whole, or one box at one size.

simplejpeg (libjpeg-turbo) decodes and OpenCV resizes: the fastest in `python -m benchmarks input_pipeline` that notice
damaged files, and both release the GIL. Pillow decodes what simplejpeg refuses (CMYK, a PNG named as a JPEG).
docs/input_pipeline.md compares the ways to decode a box.
"""

import io
import math
import struct
import warnings

import cv2
import numpy as np
import simplejpeg
from PIL import Image

from resnet_jax.errors import one_line

# One thread decodes one image: more threads inside OpenCV would slow the others down.
cv2.setNumThreads(0)

#: Markers of frame headers; the three others of that range are not.
_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}

#: Those of baseline, extended and progressive Huffman coding; others are rare.
_HUFFMAN = (0xC0, 0xC1, 0xC2)

#: Scale up to which `resize_crop` shrinks with three taps.
_THREE_TAPS = 2.0

Box = tuple[float, float, float, float]


class DecodeError(ValueError):
    """Raised for bytes that are no whole image; the message says why."""


def image_size(data: bytes) -> tuple[int, int]:
    """Reads (height, width) in pixels from the header; raises DecodeError if there is none."""
    if data[:2] == b"\xff\xd8":
        try:
            height, width = struct.unpack_from(">HH", data, _frame(data) + 5)
        except (IndexError, struct.error):
            raise DecodeError(f"a JPEG of {len(data)} bytes that ends inside its header") from None
        return height, width
    width, height = _pillow(data).size
    return height, width


def kind(data: bytes) -> str:
    """Returns "rgb", "grayscale" or "cmyk" for a JPEG, or the format's name; raises DecodeError for no image."""
    image = _pillow(data)
    if image.format not in ("JPEG", "MPO"):
        return str(image.format).lower()
    return {"L": "grayscale", "CMYK": "cmyk"}.get(image.mode, "rgb")


def decode(data: bytes, reduce: int = 1) -> np.ndarray:
    """Decodes the whole image, uint8 RGB, (height, width, 3); EXIF orientation is ignored, as is usual on ImageNet.

    Args:
      data: the file.
      reduce: 1, 2, 4 or 8: decode a JPEG at that fraction of its size, rounded up, from its low frequencies alone.

    Raises:
      DecodeError: for what is damaged, cut short or no image.
    """
    if not data:
        raise DecodeError("an empty file")
    least = _reduced(image_size(data), reduce) if reduce > 1 else (0, 0)
    try:
        return _turbo(data, least, strict=True)
    except ValueError:
        # CMYK, other formats, harmless irregularities; Pillow raises for truncated images.
        try:
            return np.asarray(_pillow(data).convert("RGB"))
        except (OSError, SyntaxError, ValueError, struct.error) as error:
            raise DecodeError(one_line(error)) from error


def decode_crop(data: bytes, box: Box, size: int) -> np.ndarray:
    """Decodes one box of an image at one size, antialiased, uint8 RGB, (size, size, 3).

    A JPEG is decoded at a half, a quarter or an eighth of its size where the box shrinks by as much. That moves the
    box's edges a little, which does not matter for random crops; `test_crops` uses the whole image.

    Rows below the box are not decoded where that gives the same pixels. Then damage inside a file may go unnoticed, as
    it does with Pillow and TensorFlow; a truncated file is noticed.

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
    short, rows = _cut_below(data, height, box[0] + box[2])
    if rows < height:
        try:
            pixels = _turbo(short, _reduced((rows, width), reduce), strict=False)
        except ValueError:
            pass  # CMYK, or damaged; decoding the whole image tells which
        else:
            # The reduced whole image has a last row for the remainder, by which edges are rounded.
            scale = height / _reduced((height, width), reduce)[0]
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
    """Encodes the image as a JPEG whose shorter side is at most `shorter_side` pixels (0: unchanged)."""
    pixels = decode(data)
    height, width = pixels.shape[:2]
    scale = shorter_side / min(height, width) if shorter_side else 1.0
    if scale < 1:
        pixels = resize(pixels, max(1, round(height * scale)), max(1, round(width * scale)))
    return simplejpeg.encode_jpeg(np.ascontiguousarray(pixels), quality, "RGB", "420")


def _frame(data: bytes) -> int:
    """Finds a JPEG's frame header; raises IndexError or struct.error if there is none."""
    at = 2
    while data[at] == 0xFF:
        if data[at + 1] == 0xFF:  # padding
            at += 1
        elif data[at + 1] in _FRAMES:
            return at
        else:
            at += 2 + int.from_bytes(data[at + 2 : at + 4], "big")
    raise IndexError(at)


def _cut_below(data: bytes, height: int, bottom: float) -> tuple[bytes, int]:
    """Returns a JPEG whose header says fewer rows, down to `bottom`, and their number; decoders stop after them.

    Where that is not possible, or the file is truncated, it returns the file and `height`.
    """
    if data[:2] != b"\xff\xd8" or data[-2:] != b"\xff\xd9":
        return data, height
    at = _frame(data)
    if data[at + 1] not in _HUFFMAN:
        return data, height
    # A row of blocks is as high as the component with the most samples. Colours are interpolated with the next row.
    components = data[at + 10 : at + 10 + 3 * data[at + 9]]
    block = 8 * max([1, *(factors & 15 for factors in components[1::3])])
    rows = (math.ceil(bottom / block) + 1) * block
    if rows >= height:
        return data, height
    return data[: at + 5] + struct.pack(">H", rows) + data[at + 7 :], rows


def _reduced(shape: tuple[int, int], reduce: int) -> tuple[int, int]:
    return -(-shape[0] // reduce), -(-shape[1] // reduce)


def _turbo(data: bytes, least: tuple[int, int], strict: bool) -> np.ndarray:
    """Decodes at the smallest of libjpeg-turbo's scales with at least so many (rows, columns); 0: the whole image."""
    # Fast upsampling would gain 5 % and change pixels more than everything else here together.
    return simplejpeg.decode_jpeg(data, "RGB", fastdct=False, fastupsample=False, min_height=least[0],
                                  min_width=least[1], min_factor=1, strict=strict)  # fmt: skip


def _pillow(data: bytes) -> Image.Image:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # odd camera notes
            return Image.open(io.BytesIO(data))
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise DecodeError("not an image" if data else "an empty file") from error
