"""The 1,000 classes of ILSVRC 2012: sorted WordNet ids, whose index is the label."""

import functools
from collections.abc import Iterable, Sequence
from pathlib import Path

from resnet_jax.data.label_files import read_image_labels
from resnet_jax.errors import UserError, some

#: Images of ILSVRC 2012, by split.
COUNTS = {"train": 1_281_167, "val": 50_000}


@functools.cache
def official_wnids() -> tuple[str, ...]:
    """Returns all 1,000, sorted: the list of tensorflow-datasets (labels.txt of its imagenet2012)."""
    return tuple(Path(__file__).with_name("wnids.txt").read_text().split())


@functools.cache
def class_names() -> tuple[str, ...]:
    """Returns the classes' names by label, all different, as in torchvision.

    They are WordNet's first lemmas, except for "crane bird" and "maillot tank suit", whose first lemmas occur twice.
    """
    return tuple(Path(__file__).with_name("names.txt").read_text().splitlines())


def check_wnids(found: Iterable[str], where: str, allow_partial: bool) -> None:
    """Checks the classes of a source.

    Raises:
      UserError: for a class that ILSVRC 2012 does not have, or, unless `allow_partial`, one that is missing.
    """
    classes, official = set(found), set(official_wnids())
    if strange := sorted(classes - official):
        raise UserError(
            f"{where} has {some(strange, 3)}, not among the 1,000 WordNet ids of ILSVRC 2012 (as n01440764)"
        )
    missing = sorted(official - classes)
    if missing and not allow_partial:
        raise UserError(f"{where} lacks {some(missing, 3)}; --allow_partial takes it as it is")


def label_of(wnid: str) -> int:
    """Returns the label of an official WordNet id, 0 to 999."""
    return _labels()[wnid]


@functools.cache
def _labels() -> dict[str, int]:
    return {wnid: label for label, wnid in enumerate(official_wnids())}


def validation_labels(names: Sequence[str], path: str | None) -> list[str]:
    """Returns the WordNet id of each validation image of a set without class folders.

    Args:
      names: file names.
      path: a text file; see `label_files.read_image_labels`. If None, the official labels of tensorflow-datasets, by
        the number in ILSVRC2012_val_00000001.

    Raises:
      UserError: if the file cannot be read or does not fit, or a name has no number.
    """
    if path is None:
        return _by_number(names)
    return read_image_labels(path, names, _labels(), f"--val_labels={path}")


def _by_number(names: Sequence[str]) -> list[str]:
    import tensorflow_datasets

    home = Path(tensorflow_datasets.__file__).parent / "datasets/imagenet2012/validation_labels.txt"
    try:
        official = home.read_text().split()
    except OSError as error:
        raise UserError("this tensorflow-datasets has no validation labels of ImageNet; give --val_labels") from error
    labels = []
    for name in names:
        number = Path(name).stem.rpartition("_")[2]
        if not number.isdecimal() or not 1 <= int(number) <= len(official):
            raise UserError(f"validation image {name} is not ILSVRC2012_val_NUMBER.JPEG; give --val_labels=FILE")
        labels.append(official[int(number) - 1])
    return labels
