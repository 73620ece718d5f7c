"""Reads a plain folder of images by class, split into training and evaluation."""

import dataclasses
import unicodedata
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from resnet_jax.data.held_out_split import choose_split, stratified_split
from resnet_jax.data.imagenet.source import FileSource, Splits
from resnet_jax.data.listing import Listing, list_folder
from resnet_jax.errors import UserError, some

#: Names that the folder of each split may have, in small or capital letters.
PARTS = {"train": ("train",), "validation": ("val", "validation", "valid"), "test": ("test",)}

_ENDINGS = "image files end in .jpg, .png, .webp, .tif or the like"


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
    top = _list(root, called)
    notes: list[str] = []
    parts = _parts(top, called, notes)
    if "train" not in parts:
        if parts:
            raise UserError(
                f"{called} holds {next(iter(parts.values())).name}/ but no train/: put the class folders of the "
                "training images there. For a share of the images that there are, give the folder of the class folders "
                "itself, with config.data.held_out_share"
            )
        parts = {"train": root}
    folders = _list(parts["train"], called).folders
    classes = [folder.name for folder in folders]
    if len(classes) < 2:
        raise UserError(f"{called} has {_too_few(root, parts['train'], folders)}")
    notes += alike(classes, "class folders")
    train = _source(parts["train"], classes, notes)
    evaluated_on = choose_split(str(root), parts.keys() - {"train"}, eval_split, share > 0, notes)
    if evaluated_on != "held_out":
        test = _source(parts[evaluated_on], classes, notes, parts["train"])
        return Splits(train, test, evaluated_on, tuple(notes))
    kept, held = stratified_split(train.names, train.labels, share, classes)
    return Splits(_take(train, kept.tolist()), _take(train, held.tolist()), evaluated_on, tuple(notes))


def root_of(data: ConfigDict, field: str) -> Path:
    """Returns the folder of a set that `config.data` names; `field` is the one that messages ask for.

    Raises:
      UserError: if none is named, or there is no such folder.
    """
    given = data.data_dir or data.folder
    if given is None:
        raise UserError(f"{data.name} needs --config.data.{field}=PATH")
    root = Path(given).expanduser()
    if not root.is_dir():
        raise UserError(f"config.data.{field}={given} is no folder")
    return root


def split_folders(top: Listing, called: str) -> dict[str, Path]:
    """Returns the folders that are named as splits are, by the split.

    Args:
      top: of the folder of the set.
      called: its name in errors.

    Raises:
      UserError: for two folders of one split.
    """
    parts: dict[str, Path] = {}
    for folder in top.folders:
        part = next((part for part, names in PARTS.items() if folder.name.lower() in names), None)
        if part in parts:
            raise UserError(f"{called} holds both {parts[part].name}/ and {folder.name}/; leave one of them")
        if part is not None:
            parts[part] = folder
    return parts


def _list(folder: Path, called: str) -> Listing:
    try:
        return list_folder(folder)
    except NotADirectoryError as error:
        raise UserError(f"{called} is a file; give a folder with a folder of images for each class") from error
    except OSError as error:
        where = called if called.endswith(f"={folder}") else str(folder)
        raise UserError(f"{where} cannot be read: {error.strerror or error}") from error


def _parts(top: Listing, called: str, notes: list[str]) -> dict[str, Path]:
    """Returns the folders of the splits; none where all folders are of classes. Adds notes on what is left out.

    Raises:
      UserError: for two folders of one split.
    """
    parts = split_folders(top, called)
    beside = [folder for folder in top.folders if folder not in parts.values()]
    inside = {folder: _list(folder, called) for folder in (*parts.values(), *beside)}
    # A class may be called "train", beside "bus" and "car".
    if any(inside[folder].images for folder in beside) and not any(inside[p].folders for p in parts.values()):
        return {}
    for part, folder in list(parts.items()):
        if part != "train" and not inside[folder].folders:
            what = "images, but " if inside[folder].images else ""
            notes.append(f"{folder} holds {what}no class folders, and is left out")
            del parts[part]
    if parts and beside:
        notes.append(f"folders beside {next(iter(parts.values())).name}/ are left out: "
                     f"{some([folder.name for folder in beside], 4)}")  # fmt: skip
    return parts


def _too_few(root: Path, train: Path, folders: Sequence[Path]) -> str:
    """Returns what is wrong with a folder that has fewer than two class folders, and what to do."""
    rule = "images lie in a folder for each of two classes or more"
    if not folders:
        return f"no class folders; {rule}"
    inside = _list(folders[0], str(folders[0]))
    if inside.images or not inside.folders:
        return f"class folder {folders[0].name!r} alone; {rule}"
    do = f"give {folders[0]}" if train == root else f"move its folders up into {train.name}/"
    return f"{folders[0].name}/ alone, which holds the folders: {do}"


def alike(classes: Sequence[str], what: str) -> list[str]:
    """Returns notes on classes whose names look the same; `what` they are the names of."""
    seen: dict[str, str] = {}
    notes = []
    for name in classes:
        if (other := seen.setdefault(_plain(name), name)) != name:
            notes.append(f"{what} {ascii(other)} and {ascii(name)} differ in case alone, and are two classes")
    return notes


def _plain(name: str) -> str:
    """Returns a name without case, and with accents composed, which macOS stores apart."""
    return unicodedata.normalize("NFC", name).casefold()


def _source(folder: Path, classes: Sequence[str], notes: list[str], train: Path | None = None) -> FileSource:
    """Returns the images in class folders, and adds notes on what is left out.

    Args:
      folder: holds the class folders.
      classes: names by label.
      notes: are added to.
      train: where the training images are, if these are others.

    Raises:
      UserError: for a class of training images without one, and for an evaluated class that is not trained on.
    """
    names: list[str] = []
    labels: list[int] = []
    paths: list[Path] = []
    top = _list(folder, str(folder))
    strange = [*top.images, *top.others]
    for place in top.folders:
        inside = _list(place, str(place))
        if not inside.images and train is None:
            raise UserError(f"class folder {place} holds no image: {_no_image(inside)}")
        if inside.images and place.name not in classes:
            raise UserError(f"{folder} has images of {place.name!r}, which {train} has not{_hint(place.name, classes)}")
        strange += [*inside.folders, *inside.others]
        if inside.images:
            labels += [classes.index(place.name)] * len(inside.images)
        names += (f"{place.name}/{path.name}" for path in inside.images)
        paths += inside.images
    if not paths:
        raise UserError(f"{folder} holds no image in its class folders; {_ENDINGS}")
    lost = [path for path in strange if path.is_symlink() and not path.exists()]
    others = [path for path in strange if path not in lost]
    absent = sorted(set(range(len(classes))) - set(labels))
    if lost:
        notes.append(f"{len(lost)} links in {folder} lead nowhere and are left out, as {lost[0]}")
    if others:
        notes.append(f"{len(others)} entries of {folder} are left out, as {others[0]}: images lie in a class folder, "
                     f"and {_ENDINGS}")  # fmt: skip
    if absent:
        named = some([classes[label] for label in absent], 4)
        notes.append(f"{folder} has no image of {len(absent)} of the {len(classes)} classes: {named}")
    return FileSource(names, labels, paths, None, len(classes), tuple(classes))


def _no_image(inside: Listing) -> str:
    """Returns why a class folder holds no image, and what to do."""
    if inside.folders:
        return f"its images lie in {inside.folders[0].name}/, a folder too deep; move them up"
    if inside.others:
        return f"{inside.others[0].name} and the like do not count, since {_ENDINGS}"
    return "remove it, or put its images there"


def _hint(name: str, classes: Sequence[str]) -> str:
    """Returns which class a name that is no class looks like."""
    alike = next((one for one in classes if _plain(one) == _plain(name)), None)
    return f": there it is {ascii(alike)}, and here {ascii(name)}" if alike else ""


def _take(source: FileSource, indices: Sequence[int]) -> FileSource:
    taken: Any = {name: [getattr(source, name)[i] for i in indices] for name in ("names", "labels", "paths")}
    return dataclasses.replace(source, **taken)
