"""Image files to RGB pixels: whole, or one box of them at one size.

simplejpeg (libjpeg-turbo) decodes and OpenCV resizes: of the libraries in `python -m benchmarks input_pipeline` the
fastest that also notices damaged files; both let other threads run meanwhile. What simplejpeg refuses (CMYK, PNG under
the name of a JPEG) goes through Pillow.
"""

import io
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
            at = 2
            while data[at] == 0xFF:
                if data[at + 1] == 0xFF:  # padding
                    at += 1
                    continue
                if data[at + 1] in _FRAMES:
                    height, width = struct.unpack_from(">HH", data, at + 5)
                    return height, width
                at += 2 + int.from_bytes(data[at + 2 : at + 4], "big")
        except (IndexError, struct.error):
            pass
        raise DecodeError(f"a JPEG of {len(data)} bytes that ends inside its header")
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
    least = (0, 0)
    if reduce > 1:
        height, width = image_size(data)
        least = (-(-height // reduce), -(-width // reduce))
    try:
        # Its fast upsampling would gain 5 % and move pixels by more than everything else here together.
        return simplejpeg.decode_jpeg(data, "RGB", fastdct=False, fastupsample=False, min_height=least[0],
                                      min_width=least[1], min_factor=1, strict=True)  # fmt: skip
    except ValueError:
        # CMYK, other formats, harmless irregularities; Pillow raises for images that are cut short.
        try:
            return np.asarray(_pillow(data).convert("RGB"))
        except (OSError, SyntaxError, ValueError, struct.error) as error:
            raise DecodeError(" ".join(str(error).split()) or type(error).__name__) from error


def decode_crop(data: bytes, box: Box, size: int) -> np.ndarray:
    """One box of an image at one size, antialiased, uint8 RGB, (size, size, 3).

    Where the box is shrunk to less than half, a JPEG is decoded at a half, a quarter or an eighth of its size.

    Args:
      data: the file.
      box: (top, left, height, width) in pixels of the whole image; edges are rounded to pixels of what is
        decoded, so by up to four pixels where that is an eighth.
      size: pixels of a side.

    Raises:
      DecodeError: see `decode`.
    """
    reduce = reduction(box, size)
    return crop_resize(decode(data, reduce), box, image_size(data), size)


def reduction(box: Box, size: int) -> int:
    """The most that an image can be reduced by (1, 2, 4 or 8) while it is decoded, for a box that becomes `size`."""
    reduce = 1
    while reduce < 8 and min(box[2], box[3]) >= 2 * reduce * size:
        reduce *= 2
    return reduce


def crop_resize(pixels: np.ndarray, box: Box, whole: tuple[int, int], size: int) -> np.ndarray:
    """A box of an image of size `whole` in `pixels`, the image or a reduced copy; see `decode_crop`."""
    rows, columns = pixels.shape[:2]
    y, x = rows / whole[0], columns / whole[1]
    top, left = min(round(box[0] * y), rows - 1), min(round(box[1] * x), columns - 1)
    bottom = min(max(round((box[0] + box[2]) * y), top + 1), rows)
    right = min(max(round((box[1] + box[3]) * x), left + 1), columns)
    return resize(pixels[top:bottom, left:right], size, size)


def resize(pixels: np.ndarray, height: int, width: int) -> np.ndarray:
    """Antialiased where it shrinks (mean over area), linear where it grows, uint8 (height, width, 3)."""
    if pixels.shape[:2] == (height, width):
        return pixels
    shrinks = pixels.shape[0] >= height and pixels.shape[1] >= width
    return cv2.resize(pixels, (width, height), interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR)


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


def _pillow(data: bytes) -> Image.Image:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # odd camera notes
            return Image.open(io.BytesIO(data))
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise DecodeError("not an image" if data else "an empty file") from error
