"""Reads a plain folder of images by class, split into training and evaluation."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from resnet_jax.data.held_out_split import choose_split, stratified_split
from resnet_jax.data.imagenet.source import ENDINGS, FileSource, Splits
from resnet_jax.errors import UserError

#: Names that the folder of each split may have.
PARTS = {"train": ("train",), "validation": ("val", "validation", "valid"), "test": ("test",)}


def open_folder(root: Path, eval_split: str = "auto", share: float = 0.0, called: str = "config.data.folder") -> Splits:
    """Opens ROOT/CLASS/*.jpg, or ROOT/train/CLASS/*.jpg with the same in val/ or test/; classes are sorted.

    Args:
      root: the folder.
      eval_split: see `held_out_split.choose_split`.
      share: see `held_out_split.stratified_split`.
      called: its name in errors.

    Raises:
      UserError: for another folder, one that cannot be read, fewer than two classes, or a class without images.
    """
    called = f"{called}={root}"
    inside = _folders(root, called)
    parts = {part: root / name for part, names in PARTS.items() for name in names if name in inside}
    notes: list[str] = []
    if "train" not in parts:
        if stray := sorted(set(parts) & {"validation", "test"}):
            raise UserError(f"{called} holds {parts[stray[0]].name}/ but no train/")
        parts = {"train": root}
    classes = _folders(parts["train"], called)
    if len(classes) < 2:
        inside_train = f"class folder {classes[0]!r} alone" if classes else "no class folders"
        raise UserError(f"{called} has {inside_train}; images lie in a folder for each of two classes or more")
    train = _source(parts["train"], classes, classes, notes)
    evaluated_on = choose_split(str(root), parts.keys() - {"train"}, eval_split, share > 0)
    if evaluated_on != "held_out":
        folder = parts[evaluated_on]
        there = _folders(folder, called)
        if strange := sorted(set(there) - set(classes)):
            raise UserError(f"{folder} has images of {strange[0]!r}, which {parts['train']} has not")
        return Splits(train, _source(folder, there, classes, notes), evaluated_on, tuple(notes))
    kept, held = stratified_split(train.names, train.labels, share, classes)
    return Splits(_take(train, kept.tolist()), _take(train, held.tolist()), evaluated_on, tuple(notes))


def _folders(folder: Path, called: str) -> list[str]:
    """Returns the names of the folders in a folder, sorted, without hidden ones."""
    try:
        entries = list(folder.iterdir())
    except NotADirectoryError as error:
        raise UserError(f"{called} is a file; give a folder with a folder of images for each class") from error
    except OSError as error:
        raise UserError(f"{called} cannot be read: {error.strerror or error}") from error
    return sorted(entry.name for entry in entries if entry.is_dir() and not entry.name.startswith("."))


def _source(folder: Path, found: Sequence[str], classes: Sequence[str], notes: list[str]) -> FileSource:
    """Returns the images in the class folders `found`, and adds a note on other files."""
    names: list[str] = []
    labels: list[int] = []
    paths: list[Path] = []
    strange = [path for path in folder.iterdir() if path.is_file() and not path.name.startswith(".")]
    for name in found:
        try:
            entries = sorted((folder / name).iterdir())
        except OSError as error:
            raise UserError(f"{folder / name} cannot be read: {error.strerror or error}") from error
        images = [path for path in entries if path.suffix.lower() in ENDINGS and not path.is_dir()]
        if not images:
            nested = next((path.name for path in entries if path.is_dir()), None)
            why = f": its images lie in {nested}/, a folder too deep" if nested else f" ({', '.join(sorted(ENDINGS))})"
            raise UserError(f"class folder {folder / name} holds no image{why}")
        strange += (path for path in entries if path not in set(images) and not path.name.startswith("."))
        names += (f"{name}/{path.name}" for path in images)
        labels += [classes.index(name)] * len(images)
        paths += images
    if strange:
        notes.append(
            f"{len(strange)} entries of {folder} are no images ({', '.join(sorted(ENDINGS))}) in a class folder, and "
            f"are left out, as {strange[0]}"
        )
    return FileSource(names, labels, paths, None, len(classes), tuple(classes))


def _take(source: FileSource, indices: Sequence[int]) -> FileSource:
    taken: Any = {name: [getattr(source, name)[i] for i in indices] for name in ("names", "labels", "paths")}
    return dataclasses.replace(source, **taken)
