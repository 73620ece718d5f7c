"""Chooses the images that a set is evaluated on: its test or validation images, or a share of the training images."""

import hashlib
from collections.abc import Collection, Iterable, Sequence

import numpy as np

from resnet_jax.errors import UserError, with_notes

#: Values of `config.data.eval_split`.
EVAL_SPLITS = ("auto", "test", "validation", "held_out")


def choose_split(name: str, there: Collection[str], eval_split: str, held_out: bool, notes: Iterable[str] = ()) -> str:
    """Returns what a set is evaluated on: "test", "validation" or "held_out".

    Args:
      name: of the set.
      there: which of "test" and "validation" it has.
      eval_split: `config.data.eval_split`.
      held_out: whether the config holds training images out.
      notes: on what was left out of the set; an error ends with them.

    Raises:
      UserError: if it has no such part.
    """
    if eval_split == "held_out" and not held_out:
        raise with_notes("config.data.eval_split=held_out needs config.data.held_out_share, as 0.2", notes)
    if eval_split in ("test", "validation") and eval_split not in there:
        has = " and ".join(sorted(there)) or "training images alone"
        raise with_notes(f"config.data.eval_split={eval_split}, but {name} has {has}", notes)
    if eval_split != "auto":
        return eval_split
    for split in ("test", "validation"):
        if split in there:
            return split
    if held_out:
        return "held_out"
    raise with_notes(
        f"{name} has training images alone; config.data.held_out_share=0.2 evaluates on a fifth of each class", notes
    )


def check_not_held_out(name: str, eval_split: str) -> None:
    """Raises UserError for `config.data.eval_split=held_out` of a set that is evaluated on validation images alone."""
    if eval_split == "held_out":
        raise UserError(
            f"config.data.eval_split=held_out is not for {name}, which is evaluated on its validation images alone"
        )


def stratified_split(names: Sequence[str], labels: Sequence[int] | np.ndarray, share: float, classes: Sequence[str]
                     ) -> tuple[np.ndarray, np.ndarray]:  # fmt: skip
    """Splits the training images: returns the indices to train on and those to evaluate on, ascending.

    Of each class, the images whose names have the lowest SHA-256 are evaluated on. So the split depends on the names
    alone, not on the seed, the machine or other classes, and one more image moves at most one other.

    Args:
      names: of the images, different within a class.
      labels: of the images.
      share: of each class that is evaluated on, rounded, at least one image.
      classes: their names, by label.

    Raises:
      UserError: for a class with fewer than two images.
    """
    labels = np.asarray(labels)
    held: list[int] = []
    for label, name in enumerate(classes):
        members = np.flatnonzero(labels == label)
        if len(members) < 2:
            raise UserError(
                f"class {name!r} has {len(members)} image(s): training and evaluation need one each at least"
            )
        count = min(max(1, round(share * len(members))), len(members) - 1)
        hashes = {i: hashlib.sha256(names[i].encode(errors="surrogateescape")).digest() for i in members.tolist()}
        held += sorted(hashes, key=hashes.__getitem__)[:count]
    evaluated = np.sort(np.array(held, np.int64))
    return np.setdiff1d(np.arange(len(labels)), evaluated), evaluated
