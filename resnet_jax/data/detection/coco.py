"""Reads boxes in COCO's JSON: ROOT/annotations/instances_train2017.json beside the folder train2017 of images."""

import contextlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from resnet_jax.data.detection.annotations import AnnotatedImage, BoxSplits, Remarks, upright, usable
from resnet_jax.data.held_out_split import choose_split
from resnet_jax.data.image_files import DecodeError, image_size, orientation
from resnet_jax.data.jpeg import is_jpeg
from resnet_jax.errors import UserError

#: Bytes of a JPEG that hold its header, but for one with much else ahead of it.
HEAD = 2**17

#: What each image, annotation and class must have.
FIELDS = {"images": ("id", "file_name", "height", "width"), "annotations": ("id", "image_id", "category_id", "bbox"),
          "categories": ("id", "name")}  # fmt: skip

#: Names that a part's file and folder may begin with.
PARTS = {"train": "train", "validation": "val", "test": "test"}


def open_coco(root: Path, eval_split: str = "auto", share: float = 0.0, classes: Sequence[str] = ()) -> BoxSplits:
    """Opens a set in COCO's layout.

    The file of a part is annotations/instances_PART*.json or PART/_annotations.coco.json, PART being train, val or
    test; its images lie in PART*/, in images/PART*/, or beside the second of these files.

    Args:
      root: the folder.
      eval_split: see `held_out_split.choose_split`; `share` must be 0.
      classes: names by label; unset: those of the training file, in the order of their ids.

    Raises:
      UserError: for another layout, and for a file that cannot be read.
    """
    if share:
        raise UserError("config.data.held_out_share is for images without validation or test images, not for coco")
    files = {part: file for part, name in PARTS.items() if (file := _file(root, name)) is not None}
    if "train" not in files:
        raise UserError(f"{root} has no annotations/instances_train*.json and no train/_annotations.coco.json")
    evaluated_on = choose_split(str(root), files.keys() - {"train"}, eval_split, False)
    remarks = Remarks()
    records = {part: _load(files[part]) for part in ("train", evaluated_on)}
    known = tuple(classes) or tuple(
        c["name"] for c in sorted(records["train"]["categories"], key=lambda c: c["id"])
    )  # fmt: skip
    train, test = (_images(records[part], _folder(root, part, files[part]), known, remarks) for part in records)
    if not train or not test:
        raise UserError(f"{root} has no image to {'evaluate on' if train else 'train on'}")
    return BoxSplits(train, test, known, evaluated_on, remarks.sentences())


def _file(root: Path, name: str) -> Path | None:
    found = sorted(root.glob(f"annotations/instances_{name}*.json")) or sorted(
        root.glob(f"{name}*/_annotations.coco.json")
    )
    return found[-1] if found else None


def _folder(root: Path, part: str, file: Path) -> Path:
    if file.name.startswith("_"):
        return file.parent
    name = file.stem.removeprefix("instances_")
    folders = [folder for folder in (root / name, root / "images" / name, root / "images") if folder.is_dir()]
    if not folders:
        raise UserError(f"{root} has {file.name} but no folder {name}/ or images/{name}/ of its images")
    return folders[0]


def _load(file: Path) -> dict[str, Any]:
    try:
        record = json.loads(file.read_bytes())
    except (OSError, ValueError, RecursionError):
        record = None
    if not isinstance(record, dict) or not all(isinstance(record.get(name), list) for name in FIELDS):
        raise UserError(f"{file} is no file of COCO's: it needs lists of images, annotations and categories")
    for name, fields in FIELDS.items():
        for place, one in enumerate(record[name]):
            if not isinstance(one, dict) or not one.keys() >= set(fields):
                raise UserError(f"{file} is no file of COCO's: entry {place} of {name} must have {', '.join(fields)}")
    return record


def _images(record: dict[str, Any], folder: Path, classes: Sequence[str], remarks: Remarks) -> list[AnnotatedImage]:
    """Returns the images whose files are there, in the order of the file."""
    labels = {name: label for label, name in enumerate(classes)}
    label_of = {c["id"]: labels.get(c["name"]) for c in record["categories"]}
    there = {path.name for path in folder.iterdir()}
    images: dict[Any, dict[str, Any]] = {}
    for image in record["images"]:
        if image["id"] in images:
            remarks.add("images have the id of another one and are left out", image["file_name"])
        elif Path(image["file_name"]).name not in there:
            remarks.add("images are missing and left out", image["file_name"])
            images[image["id"]] = {}
        else:
            images[image["id"]] = image
    objects: dict[Any, list[dict[str, Any]]] = {}
    seen: set[Any] = set()
    for one in record["annotations"]:
        if one["image_id"] not in images:
            remarks.add("objects of images that the file does not have are left out", f"annotation {one['id']}")
        elif one["id"] in seen:
            remarks.add("objects have the id of another one and are left out", f"annotation {one['id']}")
        elif label_of.get(one["category_id"]) is None:
            remarks.add("objects of unknown classes are left out", f"annotation {one['id']}")
        elif not _is_box(one["bbox"]):
            remarks.add("objects whose box is not four numbers are left out", f"annotation {one['id']}")
        else:
            objects.setdefault(one["image_id"], []).append(one)
        seen.add(one["id"])
    return [_image(image, objects.get(key, []), folder, label_of, remarks) for key, image in images.items() if image]


def _is_box(box: Any) -> bool:
    return isinstance(box, list) and len(box) == 4 and all(isinstance(value, int | float) for value in box)


def _image(image: dict[str, Any], objects: list[dict[str, Any]], folder: Path, label_of: dict[Any, Any],
           remarks: Remarks) -> AnnotatedImage:  # fmt: skip
    path, said = folder / Path(image["file_name"]).name, (int(image["height"]), int(image["width"]))
    (height, width), turn = _size_and_turn(path) or (said, 1)
    drawn = [[x, y, x + w, y + h] for x, y, w, h in (one["bbox"] for one in objects)]
    corners = upright(drawn, said, (height, width), turn, path.name, remarks)
    kept = list(usable(corners, height, width, image["file_name"], remarks))
    if not kept:
        remarks.add("images show no object and are background", image["file_name"])
    chosen = [objects[i] for i, _ in kept]
    boxes = np.array([box for _, box in kept], np.float32).reshape(-1, 4)
    of_boxes = np.prod(boxes[:, 2:] - boxes[:, :2], axis=1).tolist()
    areas = [of_box if one.get("area") is None else one["area"] for one, of_box in zip(chosen, of_boxes, strict=True)]
    return AnnotatedImage(
        path, height, width, boxes,
        np.array([label_of[one["category_id"]] for one in chosen], np.int32),
        np.array([bool(one.get("iscrowd", 0)) for one in chosen], bool), np.array(areas, np.float32),
    )  # fmt: skip


def _size_and_turn(path: Path) -> tuple[tuple[int, int], int] | None:
    """Returns (height, width) of a JPEG upright and EXIF's number for how the camera was held.

    None for a file that cannot be read, and for other formats, of which the whole file would have to be decoded.
    """
    try:
        with path.open("rb") as file:
            head = file.read(HEAD)
            if not is_jpeg(head):
                return None
            with contextlib.suppress(DecodeError):
                return image_size(head), orientation(head)
            whole = head + file.read()
        return image_size(whole), orientation(whole)
    except (OSError, DecodeError):
        return None
