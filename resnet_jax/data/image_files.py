"""The one way from an image file to pixels: training, `prepare`, evaluation and `predict` read files by `decode`.

simplejpeg decodes JPEGs, as libjpeg-turbo's exact method does. Pillow decodes what it refuses (CMYK, harmless
irregularities) and all other formats. What is decoded faster, as one box of a JPEG (`imagenet.decode.decode_crop`), is
tested against this. docs/using.md has a table of what is read, and how.
"""

import dataclasses
import io
import struct
import sys
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import ExifTags, Image, ImageFile, JpegImagePlugin

from resnet_jax.data.jpeg import has_notes, is_jpeg, is_sequential, stored_size, turbo
from resnet_jax.errors import UserError, check_memory, one_line

# Pillow warns of odd EXIF notes and the like. `catch_warnings` is not safe in threads, which decode here.
warnings.filterwarnings("ignore", module=r"PIL\.")

#: Pixels (200 MB) above which a JPEG is decoded at a half, a fourth or an eighth of its size. The largest possible
#: JPEG, 65,535 by 65,535, fits at an eighth. Other formats cannot be reduced while they are decoded.
MOST_PIXELS = 2**26

#: Pixels above which files of other formats are refused; Pillow's limit, too.
MOST_PIXELS_OF_OTHERS = 89_478_485

_TOO_LARGE = f"an image of more than the {MOST_PIXELS_OF_OTHERS:,} pixels that are read of other files than JPEG"

#: Pixels of the largest unit that a JPEG codes together; it takes a bit at least.
_LARGEST_UNIT = 32 * 32

#: The largest value of grey pixels of 2 and of 4 bits, by Pillow's name of how they are stored.
_WHITE = {"L;2": 3, "L;4": 15}

#: Names the standard input.
STDIN = "-"

#: From the rows as they are stored to the scene, by EXIF's number for how the camera was held.
_UPRIGHT: dict[int, Callable[[np.ndarray], np.ndarray]] = {
    2: lambda stored: stored[:, ::-1],
    3: lambda stored: stored[::-1, ::-1],
    4: lambda stored: stored[::-1],
    5: lambda stored: stored.swapaxes(0, 1),
    6: lambda stored: np.rot90(stored, -1),
    7: lambda stored: stored.swapaxes(0, 1)[::-1, ::-1],
    8: lambda stored: np.rot90(stored),
}


class DecodeError(ValueError):
    """Raised for bytes that are no whole image; the message says what they are: "an empty file"."""


def decode(data: bytes, reduce: int = 1) -> np.ndarray:
    """Decodes a whole image file, whatever its name: its first frame, upright, uint8 RGB, (height, width, 3).

    It is turned as EXIF says. What is transparent lies over white. Of 16 bits the upper 8 are taken. CMYK (in JPEGs
    inverted, as Adobe writes it) is converted without a colour profile, and colour profiles are ignored.

    Args:
      data: the file.
      reduce: 1, 2, 4 or 8: decode a JPEG at that fraction of its size, rounded up, from its low frequencies alone.
        One of more than `MOST_PIXELS` is reduced in any case.

    Raises:
      DecodeError: for what is damaged, cut short, too large, or no image, and for pixels of 32 bits.
    """
    if not is_jpeg(data):
        return _by_pillow(_open(data))
    height, width = _jpeg_size(data)
    reduce = max(reduce, least_reduction(height, width))
    _check_huge(data, height * width)
    try:
        pixels = turbo(data, reduce)
    except ValueError:
        image = _open(data)  # which raises for truncated images, too
        if least_reduction(height, width) > 1:
            image.draft(None, (width // reduce, height // reduce))
        return _by_pillow(image)
    return turned(pixels, orientation(data))


def image_size(data: bytes) -> tuple[int, int]:
    """Returns (height, width) of the upright image in pixels, of a JPEG from its header alone.

    Raises:
      DecodeError: for a JPEG without a whole header, and for other files that cannot be decoded.
    """
    if not is_jpeg(data):
        height, width = decode(data).shape[:2]
        return height, width
    height, width = _jpeg_size(data)
    return (width, height) if orientation(data) > 4 else (height, width)


def least_reduction(height: int, width: int) -> int:
    """Returns the fraction (1, 2, 4 or 8) at which a JPEG of that size is decoded at least."""
    reduce = 1
    while (height // reduce) * (width // reduce) > MOST_PIXELS and reduce < 8:
        reduce *= 2
    return reduce


def orientation(data: bytes) -> int:
    """Returns EXIF's number for how the camera of a JPEG was held, 1 to 8; 1, upright, where nothing can be read."""
    if not has_notes(data):
        return 1
    try:
        return _orientation(_open(data))
    except DecodeError:
        return 1


def kind(data: bytes) -> str:
    """Returns "rgb", "grayscale" or "cmyk" for a JPEG, or the format's name; raises DecodeError for no image."""
    image = _open(data)
    if image.format != "JPEG":
        return str(image.format).lower()
    return {"L": "grayscale", "CMYK": "cmyk"}.get(image.mode, "rgb")


@dataclasses.dataclass(frozen=True)
class DecodedImage:
    """Holds an image upright.

    Attributes:
      pixels: uint8, (height, width, 3) RGB or (height, width) grey; a huge JPEG is reduced.
      note: what was left out of the file, as other frames; empty: nothing.
    """

    pixels: np.ndarray
    note: str = ""


def read_image(path: str | Path, grey: bool = False) -> DecodedImage:
    """Reads an image file by `decode`.

    Args:
      path: of the file; "-": the standard input.
      grey: whether to return grey pixels (ITU-R 601) or RGB.

    Raises:
      UserError: naming the file, if it cannot be read as an image or is too large.
    """
    name = "the standard input" if str(path) == STDIN else str(path)
    data = _read(path, name)
    try:
        pixels = decode(data)
    except DecodeError as error:
        raise UserError(f"{name} is {error}") from error
    frames = _frames(data)
    note = f"the first of {frames} frames" if frames > 1 else ""
    return DecodedImage(np.asarray(Image.fromarray(pixels).convert("L")) if grey else pixels, note)


def _read(path: str | Path, name: str) -> bytes:
    try:
        data = sys.stdin.buffer.read() if str(path) == STDIN else Path(path).expanduser().read_bytes()
    except FileNotFoundError as error:
        raise UserError(f"there is no file {name}") from error
    except IsADirectoryError as error:
        raise UserError(f"{name} is a folder; give the images in it, as {name.rstrip('/')}/*") from error
    except (OSError, ValueError) as error:
        raise UserError(f"{name} cannot be read: {getattr(error, 'strerror', None) or error}") from error
    if not data:
        raise UserError(f"{name} is empty")
    return data


def _jpeg_size(data: bytes) -> tuple[int, int]:
    try:
        height, width = stored_size(data)
    except (IndexError, struct.error) as error:
        raise DecodeError(f"damaged: a JPEG of {len(data)} bytes that ends inside its header") from error
    if not height or not width:
        raise DecodeError("a JPEG whose header says no size")
    return height, width


def _check_huge(data: bytes, pixels: int) -> None:
    """Refuses JPEGs that would take far more memory or time than a reduced image does."""
    if pixels <= MOST_PIXELS:
        return
    if not is_sequential(data):  # its coefficients are all kept, whatever the size that is asked for
        raise DecodeError(f"a progressive JPEG of {pixels:,} pixels, more than the {MOST_PIXELS:,} that are read")
    if 8 * len(data) < pixels // _LARGEST_UNIT:
        raise DecodeError(f"damaged: {len(data):,} bytes cannot be a JPEG of {pixels:,} pixels")


def _open(data: bytes) -> ImageFile.ImageFile:
    """Opens an image without decoding it."""
    if not data:
        raise DecodeError("an empty file")
    try:
        if is_jpeg(data):
            return JpegImagePlugin.JpegImageFile(io.BytesIO(data))  # `Image.open` would check the full size
        image = Image.open(io.BytesIO(data))
    except Image.UnidentifiedImageError as error:
        raise DecodeError("no image of a format that Pillow reads") from error
    except Image.DecompressionBombError as error:
        raise DecodeError(_TOO_LARGE) from error
    except Exception as error:  # Pillow's readers raise errors of many types for damaged files
        check_memory(error)
        raise DecodeError(f"damaged: {one_line(error)}") from error
    if image.width * image.height > MOST_PIXELS_OF_OTHERS:
        raise DecodeError(_TOO_LARGE)
    if image.format == "PNG":
        _scale_transparent(image)
    return image


def _scale_transparent(image: ImageFile.ImageFile) -> None:
    """Gives the colour that counts as transparent in a PNG in the 8 bits of the pixels; Pillow leaves it as stored."""
    colour, stored = image.info.get("transparency"), image.tile[0].args if image.tile else None
    if isinstance(colour, int) and stored in _WHITE:
        image.info["transparency"] = colour * 255 // _WHITE[stored]
    elif isinstance(colour, tuple) and stored == "RGB;16B":
        image.info["transparency"] = tuple(value >> 8 for value in colour)


def _by_pillow(image: Image.Image) -> np.ndarray:
    try:
        image.load()
        # Only now: a PNG's note may come last, and Pillow itself turns a TIFF while it is loaded.
        turn = _orientation(image)
        return turned(_to_rgb(image), turn)
    except DecodeError:
        raise
    except Exception as error:  # Pillow's readers raise errors of many types for damaged files
        check_memory(error)
        raise DecodeError(f"damaged: {one_line(error)}") from error


def _orientation(image: Image.Image) -> int:
    try:
        found = image.getexif().get(ExifTags.Base.Orientation, 1)
        return found if found in _UPRIGHT else 1
    except Exception as error:  # of many types, for damaged notes
        check_memory(error)
        return 1


def turned(pixels: np.ndarray, turn: int) -> np.ndarray:
    """Returns rows as a file stores them as the image upright, by EXIF's number for how the camera was held."""
    return np.ascontiguousarray(_UPRIGHT[turn](pixels)) if turn in _UPRIGHT else pixels


def _to_rgb(image: Image.Image) -> np.ndarray:
    if image.mode == "F":
        raise DecodeError("an image of floating-point pixels, whose range nobody knows; save it with 8 or 16 bits")
    if image.mode == "I" and image.format not in ("PNG", "PPM"):  # of these, Pillow reads 16 bits as such
        raise DecodeError("an image of pixels of 32 bits, whose range nobody knows; save it with 8 or 16 bits")
    if image.mode.startswith("I"):
        deep = np.asarray(image)
        grey = (deep >> 8).astype(np.uint8)  # Pillow would clip at 255
        clear = image.info.get("transparency")
        if isinstance(clear, int):
            grey[deep == clear] = 255
        return np.repeat(grey[..., None], 3, axis=-1)
    if image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return np.asarray(image.convert("RGB"))


def _frames(data: bytes) -> int:
    """Returns the number of frames or pages; 1 for a JPEG, in which others are previews or depth maps."""
    if is_jpeg(data):
        return 1
    try:
        return getattr(_open(data), "n_frames", 1)
    except Exception:  # of many types: later frames are damaged
        return 1
