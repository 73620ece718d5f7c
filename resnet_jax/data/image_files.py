"""Reads image files of any kind for `predict`, and shows them as the net's test images were shown.

Training and testing read their files through `data.imagenet`.
"""

import dataclasses
import io
import struct
import sys
import warnings
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps, JpegImagePlugin

from resnet_jax.data.imagenet.crops import center_box
from resnet_jax.data.imagenet.decode import crop_resize
from resnet_jax.errors import UserError, one_line

#: Pixels (200 MB) above which a JPEG is decoded at a half, a fourth or an eighth of its size. The largest possible
#: JPEG, 65,535 by 65,535, fits at an eighth. Other formats cannot be reduced while they are decoded.
MOST_PIXELS = 2**26

#: Side in pixels up to which test images are shown whole; larger ones are shown by the centre crop, 224 of 256.
LARGEST_WHOLE = 64

#: Names the standard input.
STDIN = "-"


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
    """Reads an image file: its first frame, upright, in 8 bits, over white where it is transparent.

    EXIF orientation is applied, unlike in tests on ImageNet. Of 16 bits the upper 8 are taken. CMYK is converted
    without a colour profile, as in training.

    Args:
      path: of the file; "-": the standard input.
      grey: whether to return grey pixels (ITU-R 601) or RGB.

    Raises:
      UserError: naming the file, if it cannot be read as an image or is too large.
    """
    name = "the standard input" if str(path) == STDIN else str(path)
    data = _read(path, name)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about odd EXIF
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            return _to_image(_open(data), grey)
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise UserError(
            f"{name} has more than the {Image.MAX_IMAGE_PIXELS:,} pixels that are read of other files than JPEG"
        ) from error
    except Image.UnidentifiedImageError as error:
        raise UserError(f"{name} is no image of a format that Pillow reads") from error
    except UserError as error:
        raise UserError(f"{name} {error}") from error
    except (OSError, SyntaxError, ValueError, EOFError, IndexError, struct.error, MemoryError) as error:
        raise UserError(f"{name} is damaged: {one_line(error)}") from error


def fit_image(image: DecodedImage, size: int, shorter_side: int | None = None) -> np.ndarray:
    """Crops and resizes an image for a net of `size` pixels, as tests do: uint8 (size, size, 3) or (size, size, 1).

    Up to 64 pixels it takes the largest centred square; above, the middle 224/256 of it, which is the single centre
    crop at a shorter side of 256; or what `shorter_side` in pixels says.
    """
    height, width = image.pixels.shape[:2]
    if shorter_side is None:
        shorter_side = round(size * 256 / 224) if size > LARGEST_WHOLE else size
    pixels = crop_resize(image.pixels, center_box(height, width, size, shorter_side), (height, width), size)
    return pixels[..., None] if pixels.ndim == 2 else pixels


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


def _open(data: bytes) -> Image.Image:
    """Opens an image without decoding it; huge JPEGs will be reduced. Pillow refuses other files of too many pixels."""
    if data[:3] != b"\xff\xd8\xff":
        return Image.open(io.BytesIO(data))
    image = JpegImagePlugin.JpegImageFile(io.BytesIO(data))  # `Image.open` would check the full size
    width, height = image.size
    reduce = 1
    while (width // reduce) * (height // reduce) > MOST_PIXELS and reduce < 8:
        reduce *= 2
    if reduce > 1:
        image.draft(None, (width // reduce, height // reduce))
    return image


def _to_image(image: Image.Image, grey: bool) -> DecodedImage:
    frames = getattr(image, "n_frames", 1)
    note = f"the first of {frames} frames" if frames > 1 else ""
    image.load()
    try:
        image = ImageOps.exif_transpose(image)
    except (OSError, SyntaxError, ValueError, TypeError, KeyError, struct.error):
        pass  # unreadable EXIF
    image = _eight_bits(image)
    if image.mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in image.info:
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, "white")
        image = Image.alpha_composite(white, image).convert("RGB")
    pixels = np.asarray(image.convert("L" if grey else "RGB"))
    return DecodedImage(pixels, note)


def _eight_bits(image: Image.Image) -> Image.Image:
    """Keeps the upper 8 of 16 bits; Pillow would clip them at 255."""
    if image.mode == "F":
        raise UserError("has floating-point pixels, whose range nobody knows; save it with 8 or 16 bits")
    if not image.mode.startswith("I"):
        return image
    pixels = np.asarray(image).astype(np.int64)
    if pixels.min() < 0 or pixels.max() > 65535:
        raise UserError("has pixels of 32 bits, whose range nobody knows; save it with 8 or 16 bits")
    return Image.fromarray((pixels >> 8).astype(np.uint8))
