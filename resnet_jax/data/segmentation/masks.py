"""Reads masks: from the pixel values of a file to labels."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from resnet_jax.data.imagenet.source import RecordError
from resnet_jax.errors import UserError, check_memory, one_line

#: Label of pixels that nobody has named: they have no loss and are not measured. PASCAL VOC's, and everybody's since.
IGNORE = 255

#: In a table, pixel values that no mask of the set should have.
STRANGE = 254

#: Formats, by Pillow's names, whose pixels are about the values that were saved.
LOSSY = ("JPEG", "MPO")

#: Pixel values that masks of 8 and 16 bits can have.
VALUES = 2**16


def labels_table(num_classes: int) -> np.ndarray:
    """Returns the table, uint8 (65536,), of masks whose pixels are labels: themselves, `IGNORE`, else `STRANGE`."""
    check_count(num_classes)
    table = np.full(VALUES, STRANGE, np.uint8)
    table[:num_classes] = np.arange(num_classes)
    table[IGNORE] = IGNORE
    return table


def values_table(values: Sequence[int]) -> np.ndarray:
    """Returns the table of masks in which class k has the pixel value `values[k]`; others are ignored.

    Raises:
      UserError: for a value that a mask cannot have, or that stands twice.
    """
    check_count(len(values))
    if len(set(values)) < len(values) or not all(isinstance(v, int) and 0 <= v < VALUES for v in values):
        raise UserError(f"mask_values={tuple(values)} must be different whole numbers from 0 to {VALUES - 1}")
    table = np.full(VALUES, IGNORE, np.uint8)
    table[list(values)] = np.arange(len(values))
    return table


def instances_table() -> np.ndarray:
    """Returns the table of maps of instances: 0 is the background, every other number the foreground."""
    return (np.arange(VALUES) > 0).astype(np.uint8)


def check_count(num_classes: int) -> None:
    """Raises UserError for more classes than a byte has room for, beside `IGNORE` and `STRANGE`."""
    if not 2 <= num_classes <= STRANGE:
        raise UserError(f"masks have from 2 to {STRANGE} classes, not {num_classes}")


def read_mask(path: Path, table: np.ndarray) -> np.ndarray:
    """Returns the labels of a mask, uint8 (height, width).

    Args:
      path: a palette or grey PNG of up to 16 bits, or a .mat of SBD.
      table: label of each pixel value.

    Raises:
      RecordError: if it is no such file, is damaged, or has a pixel value that is no class.
    """
    values = _sbd_values(path) if path.suffix == ".mat" else _image_values(path)
    if values.dtype == bool:  # of 1 bit: white is 1, or 255 where that alone has a name
        values = values * np.int64(255 if table[1] == IGNORE != table[255] else 1)
    if values.ndim != 2 or values.min(initial=0) < 0 or values.max(initial=0) >= VALUES:
        raise RecordError(f"mask {path} must have one number of up to 16 bits for each pixel")
    labels = table[values]
    if (strange := labels == STRANGE).any():
        raise RecordError(f"mask {path} has pixels of {values[strange][0]}, which is no class of the set")
    return labels


def _image_values(path: Path) -> np.ndarray:
    """Returns the pixel values, bool for a file of 1 bit, else int64."""
    try:
        with Image.open(path) as image:
            if image.format in LOSSY:
                raise RecordError(f"mask {path} is a JPEG, which changes pixel values; save masks as PNG")
            if image.mode not in ("P", "L", "1") and not image.mode.startswith("I"):
                raise RecordError(f"mask {path} is of colours ({image.mode}); a mask is a palette or grey PNG, "
                                  "whose pixels are numbers of classes")  # fmt: skip
            values = np.asarray(image)
            return values if image.mode == "1" else values.astype(np.int64)
    except RecordError:
        raise
    except Exception as error:  # Pillow's readers raise errors of many types for damaged files
        check_memory(error)
        raise RecordError(f"mask {path}: {one_line(error)}") from error


def _sbd_values(path: Path) -> np.ndarray:
    from scipy import io

    try:
        return np.asarray(io.loadmat(path)["GTcls"]["Segmentation"][0, 0], np.int64)
    except Exception as error:  # SciPy's, too
        check_memory(error)
        raise RecordError(f"mask {path}: {one_line(error)}") from error
