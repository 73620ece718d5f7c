"""Image files to RGB pixels: whole, or one box of them at one size.

simplejpeg (libjpeg-turbo) decodes and OpenCV resizes: of the libraries in `python -m benchmarks input_pipeline` the
fastest that also notices damaged files; both let other threads run meanwhile. What simplejpeg refuses (CMYK, PNG under
the name of a JPEG) goes through Pillow. For a box, nothing below it is decoded; docs/input_pipeline.md says what that
gains, and what was tried besides.
"""

import io
import math
import struct
import warnings

import cv2
import numpy as np
import simplejpeg
from PIL import Image

# Threads decode whole images side by side: threads inside of one would only get in their way.
cv2.setNumThreads(0)

#: The first byte of a marker's second half that says a frame's size, without those that only look so.
_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}

#: Those of baseline, extended and progressive Huffman coding; the others are hardly ever met.
_HUFFMAN = (0xC0, 0xC1, 0xC2)

#: The most that `resize_crop` shrinks by with three taps.
_THREE_TAPS = 2.0

Box = tuple[float, float, float, float]


class DecodeError(ValueError):
    """Bytes that are no whole image; the message says why."""


def image_size(data: bytes) -> tuple[int, int]:
    """(height, width) in pixels, from the header alone.

    Raises:
      DecodeError: if there is none.
    """
    if data[:2] == b"\xff\xd8":
        try:
            height, width = struct.unpack_from(">HH", data, _frame(data) + 5)
        except (IndexError, struct.error):
            raise DecodeError(f"a JPEG of {len(data)} bytes that ends inside its header") from None
        return height, width
    width, height = _pillow(data).size
    return height, width


def kind(data: bytes) -> str:
    """What the bytes are: "rgb", "grayscale" or "cmyk" for a JPEG, "png", or another format's name.

    Raises:
      DecodeError: if they are no image.
    """
    image = _pillow(data)
    if image.format not in ("JPEG", "MPO"):
        return str(image.format).lower()
    return {"L": "grayscale", "CMYK": "cmyk"}.get(image.mode, "rgb")


def decode(data: bytes, reduce: int = 1) -> np.ndarray:
    """The whole image, uint8 RGB, (height, width, 3); the orientation that cameras note is ignored, as everywhere.

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
        # CMYK, other formats, harmless irregularities; Pillow raises for images that are cut short.
        try:
            return np.asarray(_pillow(data).convert("RGB"))
        except (OSError, SyntaxError, ValueError, struct.error) as error:
            raise DecodeError(" ".join(str(error).split()) or type(error).__name__) from error


def decode_crop(data: bytes, box: Box, size: int) -> np.ndarray:
    """One box of an image at one size, antialiased, uint8 RGB, (size, size, 3).

    A JPEG is decoded at a half, a quarter or an eighth of its size where the box is shrunk by as much. That moves the
    box's edges a little, which crops at random can bear; test images are cut by `cuts.py`, out of the whole image.

    Rows below the box are not decoded where that gives the same pixels. Then damage inside a file, which Pillow and
    TensorFlow do not notice either, goes unnoticed as long as an image comes out; a file that was cut short is noticed.

    Args:
      data: the file.
      box: (top, left, height, width) in pixels of the whole image; edges are rounded to pixels of what is
        decoded, so by up to four pixels where that is an eighth.
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
            pass  # as with CMYK, or as it is damaged; the whole image says which
        else:
            # The whole image reduced has a last row for what is left over, by which edges are rounded.
            scale = height / _reduced((height, width), reduce)[0]
            return crop_resize(pixels, box, (pixels.shape[0] * scale, width), size)
    return crop_resize(decode(data, reduce), box, (height, width), size)


def reduction(box: Box, size: int) -> int:
    """The most that an image can be reduced by (1, 2, 4 or 8) while it is decoded, for a box that becomes `size`."""
    reduce = 1
    while reduce < 8 and min(box[2], box[3]) >= 2 * reduce * size:
        reduce *= 2
    return reduce


def crop_resize(pixels: np.ndarray, box: Box, whole: tuple[float, int], size: int) -> np.ndarray:
    """A box of an image of size `whole` in `pixels`, the image or a reduced copy; see `decode_crop`."""
    rows, columns = pixels.shape[:2]
    y, x = rows / whole[0], columns / whole[1]
    top, left = min(round(box[0] * y), rows - 1), min(round(box[1] * x), columns - 1)
    bottom = min(max(round((box[0] + box[2]) * y), top + 1), rows)
    right = min(max(round((box[1] + box[3]) * x), left + 1), columns)
    return resize_crop(pixels[top:bottom, left:right], size, size)


def resize(pixels: np.ndarray, height: int, width: int) -> np.ndarray:
    """Antialiased where it shrinks (mean over area), linear where it grows, uint8 (height, width, 3)."""
    if pixels.shape[:2] == (height, width):
        return pixels
    shrinks = pixels.shape[0] >= height and pixels.shape[1] >= width
    return cv2.resize(pixels, (width, height), interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR)


def resize_crop(pixels: np.ndarray, height: int, width: int) -> np.ndarray:
    """As `resize` in a third of its time where it shrinks to no less than half: three taps, then linear.

    The taps make the variance of both together that of the triangle by which Pillow and torchvision shrink: with the
    scale s of an axis, it has s^2 / 6 and linear interpolation 1 / 6 of a pixel's square.
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
    """The image as a JPEG whose shorter side is at most `shorter_side` pixels (0: as it is).

    Raises:
      DecodeError: see `decode`.
    """
    pixels = decode(data)
    height, width = pixels.shape[:2]
    scale = shorter_side / min(height, width) if shorter_side else 1.0
    if scale < 1:
        pixels = resize(pixels, max(1, round(height * scale)), max(1, round(width * scale)))
    return simplejpeg.encode_jpeg(np.ascontiguousarray(pixels), quality, "RGB", "420")


def _frame(data: bytes) -> int:
    """Where a JPEG's marker lies that says its size.

    Raises:
      IndexError, struct.error: if there is none.
    """
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
    """A JPEG whose header says fewer rows, for all that lies above `bottom`, and how many; decoders stop after them.

    The same file and `height` where that is not possible, or the file is not whole.
    """
    if data[:2] != b"\xff\xd8" or data[-2:] != b"\xff\xd9":
        return data, height
    at = _frame(data)
    if data[at + 1] not in _HUFFMAN:
        return data, height
    # Rows of blocks are as high as the component with the most samples needs; one more is what the last row's colours
    # are interpolated with.
    components = data[at + 10 : at + 10 + 3 * data[at + 9]]
    block = 8 * max([1, *(factors & 15 for factors in components[1::3])])
    rows = (math.ceil(bottom / block) + 1) * block
    if rows >= height:
        return data, height
    return data[: at + 5] + struct.pack(">H", rows) + data[at + 7 :], rows


def _reduced(shape: tuple[int, int], reduce: int) -> tuple[int, int]:
    return -(-shape[0] // reduce), -(-shape[1] // reduce)


def _turbo(data: bytes, least: tuple[int, int], strict: bool) -> np.ndarray:
    """At the smallest of libjpeg-turbo's scales with at least so many (rows, columns); 0 for the whole."""
    # Its fast upsampling would gain 5 % and move pixels by more than everything else here together.
    return simplejpeg.decode_jpeg(data, "RGB", fastdct=False, fastupsample=False, min_height=least[0],
                                  min_width=least[1], min_factor=1, strict=strict)  # fmt: skip


def _pillow(data: bytes) -> Image.Image:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # odd camera notes
            return Image.open(io.BytesIO(data))
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise DecodeError("not an image" if data else "an empty file") from error
