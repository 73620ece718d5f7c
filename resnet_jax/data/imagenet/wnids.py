"""The 1,000 classes of ILSVRC 2012: sorted WordNet ids, whose index is the label."""

import functools
from collections.abc import Iterable, Sequence
from pathlib import Path

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
      path: a text file with a line for each image: a WordNet id, in the order of the sorted names, or a name and an
        id. If None, the official labels of tensorflow-datasets, by the number in ILSVRC2012_val_00000001.

    Raises:
      UserError: if the file cannot be read or does not fit, or a name has no number.
    """
    if path is None:
        return _by_number(names)
    try:
        lines = [line.split() for line in Path(path).expanduser().read_text().splitlines() if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"--val_labels={path} cannot be read: {error}") from error
    if any(len(line) == 2 for line in lines):
        table = {line[0]: line[-1] for line in lines}
        if lost := [name for name in names if name not in table]:
            raise UserError(f"--val_labels={path} has no line for {some(lost, 3)}")
        labels = [table[name] for name in names]
    else:
        if len(lines) != len(names):
            raise UserError(f"--val_labels={path} has {len(lines):,} lines for {len(names):,} images")
        order = {name: line[0] for name, line in zip(sorted(names), lines, strict=True)}
        labels = [order[name] for name in names]
    if labels and all(label.isdecimal() for label in labels):
        # The development kit numbers classes in another order than that of the sorted ids: all labels would be wrong.
        raise UserError(f"--val_labels={path} has numbers; give WordNet ids, as n01440764")
    check_wnids(labels, f"--val_labels={path}", allow_partial=True)
    return labels


def _by_number(names: Sequence[str]) -> list[str]:
    import tensorflow_datasets

    home = Path(tensorflow_datasets.__file__).parent / "datasets/imagenet2012/validation_labels.txt"
    official = home.read_text().split()
    labels = []
    for name in names:
        number = Path(name).stem.rpartition("_")[2]
        if not number.isdecimal() or not 1 <= int(number) <= len(official):
            raise UserError(f"validation image {name} is not ILSVRC2012_val_NUMBER.JPEG; give --val_labels=FILE")
        labels.append(official[int(number) - 1])
    return labels
