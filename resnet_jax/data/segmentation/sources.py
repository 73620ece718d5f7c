"""Finds images and their masks: in a folder of the user's own, in PASCAL VOC's and in Cityscapes' layout."""

import dataclasses
import hashlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from ml_collections import ConfigDict

from resnet_jax.data.folders import root_of, split_folders
from resnet_jax.data.held_out_split import check_not_held_out, choose_split, stratified_split
from resnet_jax.data.image_files import DecodeError, decode, orientation, turned
from resnet_jax.data.imagenet.source import Example, RecordError
from resnet_jax.data.label_files import read_class_names
from resnet_jax.data.listing import list_folder
from resnet_jax.data.segmentation import cityscapes, voc
from resnet_jax.data.segmentation.masks import IGNORE, instances_table, labels_table, read_mask, values_table
from resnet_jax.errors import UserError, check_memory, some, with_notes

#: Files that name the classes of a user's folder, one a line.
CLASSES = "classes.txt"

#: Images that are looked at with their masks when a set is opened, from all over it.
LOOKED_AT = 16


@dataclasses.dataclass(frozen=True)
class PairSource:
    """Reads images with their masks; safe for threads.

    Attributes:
      names: of the images.
      images, masks: their files.
      table: label of each pixel value of a mask, see `masks`.
      classes: names by label.
    """

    names: Sequence[str]
    images: Sequence[Path]
    masks: Sequence[Path]
    table: np.ndarray
    classes: tuple[str, ...]

    @property
    def num_classes(self) -> int:
        """Number of classes."""
        return len(self.classes)

    def __len__(self) -> int:
        return len(self.names)

    def name(self, index: int) -> str:
        """Returns what messages call an example."""
        return self.names[index]

    def load(self, index: int) -> Example:
        """Reads the file of an image; raises RecordError if that fails. It has no label."""
        try:
            return Example(self.names[index], 0, self.images[index].read_bytes())
        except OSError as error:
            check_memory(error)
            raise RecordError(str(error)) from error

    def labels(self, index: int) -> np.ndarray:
        """Returns the labels of its pixels, uint8 (height, width); raises RecordError if they cannot be read."""
        return read_mask(self.masks[index], self.table)

    def pair(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        """Returns an image, uint8 (height, width, 3), and its labels, uint8 (height, width), both upright.

        A mask of the size of the rows that a photograph stores is turned with it, by a quarter.

        Raises:
          RecordError, DecodeError: if one cannot be read, or they differ in size.
        """
        data = self.load(index).data
        pixels, labels = decode(data), self.labels(index)
        if labels.shape != pixels.shape[:2] and (turn := orientation(data)) > 4:
            labels = turned(labels, turn)
        if pixels.shape[:2] != labels.shape:
            raise RecordError(f"the image has {pixels.shape[:2]} rows and columns, and its mask {labels.shape}")
        return pixels, labels

    def fingerprint(self) -> str:
        """Returns 12 hexadecimal digits that change with the images, their order, their masks or the classes."""
        sizes = [(name, mask.stat().st_size) for name, mask in zip(self.names, self.masks, strict=True)]
        return hashlib.sha256(repr((self.classes, self.table.tobytes(), sizes)).encode()).hexdigest()[:12]

    def take(self, indices: Sequence[int]) -> "PairSource":
        """Returns the examples at the indices."""
        return dataclasses.replace(
            self, names=[self.names[i] for i in indices], images=[self.images[i] for i in indices],
            masks=[self.masks[i] for i in indices],
        )  # fmt: skip


@dataclasses.dataclass(frozen=True)
class PairSplits:
    """Holds the parts of a set: to train on and to evaluate on, what the latter are, and sentences on what is odd."""

    train: PairSource
    test: PairSource
    evaluated_on: str
    remarks: tuple[str, ...]


def open_pairs(data: ConfigDict) -> PairSplits:
    """Opens the set that `config.data` names.

    Raises:
      UserError: if its folder is not there, is of another layout, or has no image with a mask.
    """
    field = "folder" if data.name == "image_masks" else "data_dir"
    root = root_of(data, field)
    if data.name != "voc2012" and data.sbd is not None:
        raise UserError(f"config.data.sbd adds masks to voc2012, not to {data.name}")
    if data.name == "image_masks":
        return _own_folder(root, data)
    if data.classes or data.mask_values or data.instances:
        raise UserError(f"config.data.classes, mask_values and instances are for image_masks, not for {data.name}")
    if data.name == "voc2012":
        return _known(voc.find(root, data.sbd), voc.CLASSES, labels_table(len(voc.CLASSES)), data)
    return _known(cityscapes.find(root), cityscapes.CLASSES, values_table(cityscapes.IDS), data)


Pairs = dict[str, tuple[Path, Path]]


def _known(parts: tuple[Pairs, Pairs], classes: tuple[str, ...], table: np.ndarray, data: ConfigDict) -> PairSplits:
    check_not_held_out(data.name, data.eval_split)
    notes: list[str] = []
    train, test = (_source(part, classes, table, data.name, notes) for part in parts)
    for source in (train, test):
        _look(source, notes)
    return PairSplits(train, test, choose_split(data.name, {"validation"}, data.eval_split, False), tuple(notes))


def _source(pairs: Pairs, classes: tuple[str, ...], table: np.ndarray, what: str, notes: list[str]) -> PairSource:
    """Returns the pairs both of whose files are there, in order, and adds a note on others."""
    missing = [name for name, files in pairs.items() if not all(file.is_file() for file in files)]
    if missing:
        notes.append(f"{len(missing)} images of {what} lack their file or their mask and are left out: "
                     f"{some(missing, 3)}")  # fmt: skip
    names = sorted(pairs.keys() - set(missing))
    if not names:
        raise with_notes(f"{what} has no image with a mask", notes)
    return PairSource(names, [pairs[n][0] for n in names], [pairs[n][1] for n in names], table, classes)


def _own_folder(root: Path, data: ConfigDict) -> PairSplits:
    """Opens ROOT/{train,val}/{images,masks}, or ROOT/{images,masks}, of which a share is held out."""
    kind = "instances" if data.instances else "masks"
    classes = _classes(root, data)
    if data.mask_values:
        if data.instances or len(data.mask_values) != len(classes):
            raise UserError(f"config.data.mask_values has {len(data.mask_values)} values, for {len(classes)} classes; "
                            "with instances=True there are none")  # fmt: skip
        table = values_table(tuple(data.mask_values))
    else:
        table = instances_table() if data.instances else labels_table(len(classes))
    parts = split_folders(list_folder(root), str(root)) or {"train": root}
    if "train" not in parts:
        raise UserError(f"{root} holds {parts[min(parts)].name}/ but no train/")
    notes: list[str] = []

    def source(part: str) -> PairSource:
        return _source(pairs_by_stem(parts[part] / "images", parts[part] / kind, notes), classes, table,
                       str(parts[part]), notes)  # fmt: skip

    for part in sorted(parts.keys() - {"train"}):
        if not (parts[part] / kind).is_dir() and (parts["train"] / kind).is_dir():
            notes.append(f"{parts[part]} has no {kind}/ and is left out")
            del parts[part]
    evaluated_on = choose_split(str(root), parts.keys() - {"train"}, data.eval_split, data.held_out_share > 0, notes)
    train = source("train")
    found = _look(train, notes)
    if not data.mask_values and found == {0, IGNORE}:  # all that is left is the background
        raise UserError(
            f"masks as {train.masks[0]} have pixels of 0 and {IGNORE} alone, and {IGNORE} is ignored; if it is a "
            "class, --config.data.mask_values=(0,255)"
        )
    if evaluated_on != "held_out":
        test = source(evaluated_on)
        _look(test, notes)
        return PairSplits(train, test, evaluated_on, tuple(notes))
    kept, held = stratified_split(train.names, [0] * len(train), data.held_out_share, ("images",))
    return PairSplits(train.take(kept.tolist()), train.take(held.tolist()), evaluated_on, tuple(notes))


def _look(source: PairSource, notes: list[str]) -> set[int]:
    """Returns the labels in a few masks, and adds a note if they have one class alone.

    Raises:
      UserError: if none of them can be used with its image.
    """
    indices = np.unique(np.linspace(0, len(source) - 1, LOOKED_AT).astype(int)).tolist()
    found: set[int] = set()
    wrong: list[str] = []
    for index in indices:
        try:
            found |= set(np.unique(source.pair(index)[1]).tolist())
        except (RecordError, DecodeError) as error:  # said again when it is to be used
            wrong.append(f"{source.name(index)}: {error}")
    where = source.masks[0].parent
    if len(wrong) == len(indices):
        raise UserError(f"no image that was looked at can be used with its mask in {where}; {wrong[0]}")
    if len(classes := found - {IGNORE}) < 2:
        alone = source.classes[classes.pop()] if classes else "no class"
        notes.append(f"{len(indices)} masks of {where} were looked at, and show {alone} alone")
    return found


def _classes(root: Path, data: ConfigDict) -> tuple[str, ...]:
    if data.classes:
        classes = tuple(data.classes)
    elif (root / CLASSES).is_file():
        classes = read_class_names(root / CLASSES)
    elif data.instances:
        classes = ("background", "foreground")
    else:
        raise UserError(f"the classes of {root} need names: --config.data.classes=\"('background','cell')\", or a line "
                        f"each in {root / CLASSES}")  # fmt: skip
    if len(classes) == 1:
        raise UserError(f"{classes[0]!r} is one class, and masks need two or more: "
                        "--config.data.classes=\"('background','cell')\"")  # fmt: skip
    if len(set(classes)) < len(classes) or (data.instances and len(classes) != 2):
        raise UserError(f"the classes {', '.join(classes)} must be different names"
                        + (", two with instances=True" if data.instances else ""))  # fmt: skip
    return classes


def pairs_by_stem(images: Path, masks: Path, notes: list[str]) -> Pairs:
    """Pairs images and masks of the same name without its ending, and adds a note on those that stand alone.

    Raises:
      UserError: if a folder is not there, or a name stands twice.
    """
    found: list[dict[str, Path]] = []
    for folder in (images, masks):
        if not folder.is_dir():
            raise UserError(f"there is no folder {folder}; images/ and masks/ (or instances/) lie side by side")
        files, inside, _ = list_folder(folder)
        if deep := [path.name for path in inside if list_folder(path).images]:
            notes.append(f"folders in {folder} lie too deep and are left out: {some(deep, 3)}")
        by_stem = {path.stem: path for path in files}
        if len(by_stem) < len(files):
            twice = next(path.stem for path in files if by_stem[path.stem] != path)
            raise UserError(f"{folder} has several files named {twice}")
        found.append(by_stem)
    for mine, other, what in ((found[0], found[1], "no mask"), (found[1], found[0], "no image")):
        if alone := sorted(mine.keys() - other.keys()):
            folder = images if what == "no mask" else masks
            notes.append(f"{len(alone)} files of {folder} have {what} and are left out: {some(alone, 3)}")
    return {stem: (found[0][stem], found[1][stem]) for stem in found[0].keys() & found[1].keys()}
