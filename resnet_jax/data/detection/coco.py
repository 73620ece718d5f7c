"""Reads boxes in COCO's JSON: ROOT/annotations/instances_train2017.json beside the folder train2017 of images."""

import contextlib
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from resnet_jax.data.detection.annotations import AnnotatedImage, BoxSplits, Remarks, held_out, upright, usable
from resnet_jax.data.held_out_split import choose_split
from resnet_jax.data.image_files import DecodeError, image_size, orientation
from resnet_jax.data.jpeg import is_jpeg
from resnet_jax.errors import UserError, check_memory

#: Bytes of a JPEG that hold its header, but for one with much else ahead of it.
HEAD = 2**17

#: What each entry of a list must have. Numbers of objects and sizes of images can be done without.
NEEDED = {"images": ("id", "file_name"), "annotations": ("image_id", "category_id"), "categories": ("id", "name")}

#: Names that a part's file and folder may begin with.
PARTS = {"train": "train", "validation": "val", "test": "test"}


def open_coco(root: Path, eval_split: str = "auto", share: float = 0.0, classes: Sequence[str] = ()) -> BoxSplits:
    """Opens a set in COCO's layout.

    The file of a part is annotations/instances_PART*.json or PART/_annotations.coco.json, PART being train, val or
    test; its images lie in PART*/, in images/PART*/, or beside the second of these files.

    Args:
      root: the folder.
      eval_split, share: see `held_out_split.choose_split`.
      classes: names by label; unset: those of the training file, in the order of their ids.

    Raises:
      UserError: for another layout, and for a file that cannot be read.
    """
    files = {part: file for part, name in PARTS.items() if (file := _file(root, name)) is not None}
    if "train" not in files:
        raise UserError(f"{root} has no annotations/instances_train*.json and no train/_annotations.coco.json")
    evaluated_on = choose_split(str(root), files.keys() - {"train"}, eval_split, share > 0)
    remarks = Remarks()
    records = {part: _load(files[part]) for part in ("train", evaluated_on) if part in files}
    known = tuple(classes) or _names(records["train"])
    parts = {
        part: _images(record, _folder(root, part, files[part]), known, remarks) for part, record in records.items()
    }
    train, test = held_out(parts["train"], share) if evaluated_on == "held_out" else tuple(parts.values())
    if not train or not test:
        raise remarks.refusal(f"{root} has no image to {'evaluate on' if train else 'train on'}")
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
        whole = all(isinstance(record[name], list) for name in NEEDED)
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        whole = False
    if not whole:
        raise UserError(f"{file} is no file of COCO's: it needs lists of images, annotations and categories")
    for name, fields in NEEDED.items():
        for number, one in enumerate(record[name], start=1):
            for field in fields:
                if not isinstance(one, dict) or not isinstance(one.get(field), str if "name" in field else (int, str)):
                    kind = "text" if "name" in field else "a number or text"
                    raise UserError(f"{file}: entry {number} of {name} has no {field} that is {kind}")
    ids = Counter(c["id"] for c in record["categories"])
    if twice := [one for one, count in ids.items() if count > 1]:
        raise UserError(f"{file}: several categories have the id {twice[0]}")
    return record


def _names(record: dict[str, Any]) -> tuple[str, ...]:
    """Returns the names of the classes in the order of their ids, numbers ahead of text; each name once."""
    ordered = sorted(record["categories"], key=lambda c: (isinstance(c["id"], str), c["id"]))
    return tuple(dict.fromkeys(c["name"] for c in ordered))


def _images(record: dict[str, Any], folder: Path, classes: Sequence[str], remarks: Remarks) -> list[AnnotatedImage]:
    """Returns the images whose files are there, in the order of the file."""
    labels = {name: label for label, name in enumerate(classes)}
    label_of = {c["id"]: labels.get(c["name"]) for c in record["categories"]}
    files = _files(record, folder)
    images: dict[Any, dict[str, Any]] = {}
    for image in record["images"]:
        if image["id"] in images:
            remarks.add("images have the id of another one and are left out", image["file_name"])
        elif image["file_name"] not in files:
            remarks.add("images are missing and left out", image["file_name"])
            images[image["id"]] = {}
        else:
            images[image["id"]] = image
    objects: dict[Any, list[dict[str, Any]]] = {}
    seen: set[Any] = set()
    for number, one in enumerate(record["annotations"], start=1):
        key = f"without id, entry {number}" if one.get("id") is None else one["id"]
        if one["image_id"] not in images:
            remarks.add("objects of images that the file does not have are left out", f"annotation {key}")
        elif str(key) in seen:
            remarks.add("objects have the id of another one and are left out", f"annotation {key}")
        elif label_of.get(one["category_id"]) is None:
            remarks.add("objects of unknown classes are left out", f"annotation {key}")
        elif len(_numbers(one.get("bbox"))) != 4:
            remarks.add("objects have no bbox of four numbers and are left out", f"annotation {key}")
        else:
            objects.setdefault(one["image_id"], []).append(one)
        seen.add(str(key))
    found = (_image(image, objects.get(key, []), files[image["file_name"]], label_of, remarks)
             for key, image in images.items() if image)  # fmt: skip
    return [image for image in found if image is not None]


def _files(record: dict[str, Any], folder: Path) -> dict[str, Path]:
    """Returns the file of each image by its `file_name`; none for those that are not there.

    A name with folders is looked for in them, and else, as the only one of its name, without them.
    """
    there = {path.name for path in folder.iterdir()}
    names = {image["file_name"]: Path(image["file_name"].replace("\\", "/")) for image in record["images"]}
    counts = Counter(path.name for path in names.values())
    found: dict[str, Path] = {}
    for name, path in names.items():
        if len(path.parts) > 1 and (folder / path).is_file():
            found[name] = folder / path
        elif path.name in there and (len(path.parts) == 1 or counts[path.name] == 1):
            found[name] = folder / path.name
    return found


def _numbers(values: Any) -> list[float]:
    """Returns a list of numbers as such; an empty one for anything else."""
    try:
        return [float(value) for value in values] if isinstance(values, list) else []
    except (TypeError, ValueError):
        return []


def _is_crowd(one: Mapping[str, Any]) -> bool:
    """Returns an object's `iscrowd`, which some tools write as text: "0" is no crowd."""
    return str(one.get("iscrowd") or 0).strip().lower() not in ("0", "0.0", "false", "")


def _image(image: dict[str, Any], objects: list[dict[str, Any]], path: Path, label_of: dict[Any, Any],
           remarks: Remarks) -> AnnotatedImage | None:  # fmt: skip
    """Returns an image with its boxes; None, and a remark, if neither the file nor the record has its size."""
    sides = _numbers([image.get("height"), image.get("width")])
    said = (int(sides[0]), int(sides[1])) if sides and np.isfinite(sides).all() else (0, 0)
    (height, width), turn = _size_and_turn(path, said) or (said, 1)
    if min(height, width) <= 0:
        remarks.add("images cannot be read and are left out", image["file_name"])
        return None
    drawn = [[x, y, x + w, y + h] for x, y, w, h in (_numbers(one["bbox"]) for one in objects)]
    corners = upright(drawn, said, (height, width), turn, path.name, remarks)
    kept = list(usable(corners, height, width, image["file_name"], remarks))
    if not kept:
        remarks.add("images show no object and are background", image["file_name"])
    chosen = [objects[i] for i, _ in kept]
    boxes = np.array([box for _, box in kept], np.float32).reshape(-1, 4)
    areas = [(_numbers([one.get("area")]) or [float(np.prod(box[2:] - box[:2]))])[0]
             for one, box in zip(chosen, boxes, strict=True)]  # fmt: skip
    return AnnotatedImage(
        path, height, width, boxes,
        np.array([label_of[one["category_id"]] for one in chosen], np.int32),
        np.array([_is_crowd(one) for one in chosen], bool), np.array(areas, np.float32),
    )  # fmt: skip


def _size_and_turn(path: Path, said: tuple[int, int]) -> tuple[tuple[int, int], int] | None:
    """Returns (height, width) of an image upright and EXIF's number for how the camera of a JPEG was held.

    None for a file that cannot be read, and for one of another format whose header has the size that is said: to know
    more of it, the whole file would have to be decoded.
    """
    try:
        with path.open("rb") as file:
            head = file.read(HEAD)
            if not is_jpeg(head) and _header_size(path) == said:
                return None
            with contextlib.suppress(DecodeError):
                return image_size(head), orientation(head)
            whole = head + file.read()
        return image_size(whole), orientation(whole)
    except (OSError, DecodeError):
        return None


def _header_size(path: Path) -> tuple[int, int] | None:
    try:
        with Image.open(path) as image:
            return image.height, image.width
    except Exception as error:  # Pillow's readers raise errors of many types for damaged files
        check_memory(error)
        return None
