"""Image files of any kind to pixels as a net's test set was shown: what `predict` reads.

Everything here is for single files that people hand over; training and testing read `data.imagenet`.
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
from resnet_jax.errors import UserError

#: Pixels above which a JPEG is decoded at a half, a fourth or an eighth of its size: 200 MB. The largest JPEG there
#: can be, 65,535 by 65,535, fits at an eighth. Other files cannot be reduced while they are decoded: see `_open`.
MOST_PIXELS = 2**26

#: Nets for images of more pixels than that are tested by the centre crop, 224 of 256; smaller images are shown whole.
LARGEST_WHOLE = 64

#: What stands for the standard input.
STDIN = "-"


@dataclasses.dataclass(frozen=True)
class Picture:
    """An image as it is to be looked at.

    Attributes:
      pixels: uint8, (height, width, 3) RGB or (height, width) grey; a huge JPEG is reduced.
      note: what the file has that was left out, as other frames; empty: nothing.
    """

    pixels: np.ndarray
    note: str = ""


def read_image(path: str | Path, grey: bool = False) -> Picture:
    """Reads an image file: its first frame, upright, in 8 bits, over white where it is transparent.

    The orientation that cameras note is applied, which tests on ImageNet do not do. Of 16 bits the upper 8 are taken.
    CMYK is converted without a colour profile, as in training.

    Args:
      path: of the file; "-": the standard input.
      grey: whether grey pixels are wanted (ITU-R 601) or RGB.

    Raises:
      UserError: for what cannot be read as an image or is too large, naming the file.
    """
    name = "the standard input" if str(path) == STDIN else str(path)
    data = _read(path, name)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # odd camera notes
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            return _to_picture(_open(data), grey)
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise UserError(
            f"{name} has more than the {Image.MAX_IMAGE_PIXELS:,} pixels that are read of other files than JPEG"
        ) from error
    except Image.UnidentifiedImageError as error:
        raise UserError(f"{name} is no image of a format that Pillow reads") from error
    except UserError as error:
        raise UserError(f"{name} {error}") from error
    except (OSError, SyntaxError, ValueError, EOFError, IndexError, struct.error, MemoryError) as error:
        raise UserError(f"{name} is damaged: {' '.join(str(error).split()) or type(error).__name__}") from error


def fit_image(picture: Picture, size: int) -> np.ndarray:
    """What a net for `size` pixels is shown of a picture, uint8 (size, size, 3) or (size, size, 1).

    The largest square in the middle; for more than 64 pixels the middle 224/256 of it, which is the test by single
    centre crop at a shorter side of 256. Resized as in the tests, antialiased where it shrinks.
    """
    height, width = picture.pixels.shape[:2]
    shorter_side = round(size * 256 / 224) if size > LARGEST_WHOLE else size
    pixels = crop_resize(picture.pixels, center_box(height, width, size, shorter_side), (height, width), size)
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
    """The image, not yet decoded. Pillow refuses files of very many pixels, which may be meant to fill the memory."""
    if data[:3] != b"\xff\xd8\xff":
        return Image.open(io.BytesIO(data))
    image = JpegImagePlugin.JpegImageFile(io.BytesIO(data))  # not `Image.open`, which looks at the whole size
    width, height = image.size
    reduce = 1
    while (width // reduce) * (height // reduce) > MOST_PIXELS and reduce < 8:
        reduce *= 2
    if reduce > 1:
        image.draft(None, (width // reduce, height // reduce))
    return image


def _to_picture(image: Image.Image, grey: bool) -> Picture:
    frames = getattr(image, "n_frames", 1)
    note = f"the first of {frames} frames" if frames > 1 else ""
    image.load()
    try:
        image = ImageOps.exif_transpose(image)
    except (OSError, SyntaxError, ValueError, TypeError, KeyError, struct.error):
        pass  # a note that cannot be read says nothing
    image = _eight_bits(image)
    if image.mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in image.info:
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, "white")
        image = Image.alpha_composite(white, image).convert("RGB")
    pixels = np.asarray(image.convert("L" if grey else "RGB"))
    return Picture(pixels, note)


def _eight_bits(image: Image.Image) -> Image.Image:
    """Pillow would cut 16-bit pixels off at 255."""
    if image.mode == "F":
        raise UserError("has floating-point pixels, whose range nobody knows; save it with 8 or 16 bits")
    if not image.mode.startswith("I"):
        return image
    pixels = np.asarray(image).astype(np.int64)
    if pixels.min() < 0 or pixels.max() > 65535:
        raise UserError("has pixels of 32 bits, whose range nobody knows; save it with 8 or 16 bits")
    return Image.fromarray((pixels >> 8).astype(np.uint8))
