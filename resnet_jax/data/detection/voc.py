"""Reads boxes in the layout of PASCAL VOC's devkit, or as the same XML files beside a user's own images."""

import dataclasses
from collections.abc import Iterable, Sequence
from pathlib import Path
from xml.etree import ElementTree

import numpy as np

from resnet_jax.data.detection.annotations import AnnotatedImage, BoxSplits, Remarks, upright, usable
from resnet_jax.data.folders import split_folders
from resnet_jax.data.held_out_split import choose_split
from resnet_jax.data.image_files import DecodeError, image_size, orientation
from resnet_jax.data.label_files import read_text
from resnet_jax.data.listing import ENDINGS, list_folder
from resnet_jax.errors import UserError

#: Bytes of the largest XML file that is read.
MOST_BYTES = 2**24

ANNOTATIONS, IMAGES, LISTS = "Annotations", "JPEGImages", Path("ImageSets", "Main")


@dataclasses.dataclass(frozen=True)
class Named:
    """Holds an image's boxes with names of classes.

    Attributes:
      path, height, width: of the image.
      boxes: float32 (n, 4).
      names: of the objects' classes.
      difficult: bool (n,).
    """

    path: Path
    height: int
    width: int
    boxes: np.ndarray
    names: tuple[str, ...]
    difficult: np.ndarray


def open_voc(root: Path, eval_split: str = "auto", share: float = 0.0, classes: Sequence[str] = ()) -> BoxSplits:
    """Opens a set with boxes in PASCAL VOC's XML.

    What the folder may be:
      - a year of the devkit: Annotations/, JPEGImages/ and ImageSets/Main/ with `train`, `val`, `trainval` and `test`
        as far as there are such. It is trained on `trainval` to be tested on `test`, and on `train` to be validated;
      - a folder of such years, VOC2007/ and VOC2012/, all of which are trained on: "07+12";
      - train/ and val/ or test/, or images alone, of which a share is held out. In each, an XML file lies beside its
        image, or images and XML files in JPEGImages/ and Annotations/.

    Args:
      root: the folder.
      eval_split, share: see `held_out_split.choose_split`.
      classes: names by label; unset: those in the training images, sorted.

    Raises:
      UserError: for another layout, and for a part without an image that can be used.
    """
    remarks = Remarks()
    parts = _devkit(root, remarks) or _folders(root, remarks)
    evaluated_on = choose_split(str(root), parts.keys() & {"test", "validation"}, eval_split, share > 0)
    whole = parts.get("trainval") or parts.get("train") or []
    pairs = parts.get("train", whole) if evaluated_on == "validation" else whole
    train = _read(pairs, remarks)
    if evaluated_on == "held_out":
        order = np.random.Generator(np.random.Philox(0)).permutation(len(train))  # the same whatever the run's seed
        held = set(order[: max(1, round(share * len(train)))].tolist())
        test = [image for i, image in enumerate(train) if i in held]
        train = [image for i, image in enumerate(train) if i not in held]
    else:
        test = _read(parts[evaluated_on], remarks)
    if not train or not test:
        raise UserError(f"{root} has no annotated image to {'evaluate on' if train else 'train on'}")
    known = tuple(classes) or tuple(sorted({name for image in train for name in image.names}))
    if not known:
        raise UserError(f"the training images of {root} show no object")
    labelled = [[_labelled(image, known, remarks) for image in part] for part in (train, test)]
    return BoxSplits(labelled[0], labelled[1], known, evaluated_on, remarks.sentences())


#: (file of boxes, file of the image) of each image of a part.
Pairs = list[tuple[Path, Path]]


def _devkit(root: Path, remarks: Remarks) -> dict[str, Pairs]:
    """Returns the lists of one or several years of the devkit; none for another folder."""
    years = [year for year in (root, *sorted(root.iterdir())) if (year / LISTS).is_dir() and year.is_dir()]
    parts: dict[str, Pairs] = {}
    for year in years:
        images = {path.stem: path for path in (list_folder(year / IMAGES).images if (year / IMAGES).is_dir() else ())}
        for part, file in (("train", "train"), ("validation", "val"), ("trainval", "trainval"), ("test", "test")):
            if (path := year / LISTS / f"{file}.txt").is_file():
                names = [line.split()[0] for line in read_text(path, str(path)).split("\n") if line.strip()]
                for name in _once(names, remarks):
                    image = images.get(name, year / IMAGES / f"{name}.jpg")
                    parts.setdefault(part, []).append((year / ANNOTATIONS / f"{name}.xml", image))
    if years and not (parts.get("trainval") or parts.get("train")):
        raise UserError(f"{root} has no list of training images: {LISTS}/trainval.txt or train.txt")
    return parts


def _once(names: Iterable[str], remarks: Remarks) -> Iterable[str]:
    seen: set[str] = set()
    for name in names:
        if name in seen:
            remarks.add("names stand twice in a list of images and count once", name)
        else:
            seen.add(name)
            yield name


def _folders(root: Path, remarks: Remarks) -> dict[str, Pairs]:
    """Returns the parts of a user's own folder."""
    parts = split_folders(list_folder(root), str(root))
    if parts and "train" not in parts:
        raise UserError(f"{root} holds {next(iter(parts.values())).name}/ but no train/")
    found: dict[str, Pairs] = {}
    for part, folder in (parts or {"train": root}).items():
        boxes, images = (folder / name if (folder / name).is_dir() else folder for name in (ANNOTATIONS, IMAGES))
        files = list_folder(images).images
        found[part] = [(boxes / f"{path.stem}.xml", path) for path in files]
        stems = {path.stem for path in files}
        for path in list_folder(boxes).others:
            if path.suffix == ".xml" and path.stem not in stems:
                remarks.add("annotations have no image and are left out", path.name)
        if not found[part]:
            raise UserError(f"{images} holds no image ({', '.join(sorted(ENDINGS))}) with a .xml file of its boxes")
    return found


def _read(pairs: Pairs, remarks: Remarks) -> list[Named]:
    return [found for pair in pairs if (found := _read_one(*pair, remarks)) is not None]


def _read_one(boxes: Path, image: Path, remarks: Remarks) -> Named | None:
    """Returns an image with its boxes; None, and a remark, if one of the files cannot be read."""
    try:
        file = image.read_bytes()
        height, width = image_size(file)
    except FileNotFoundError:
        remarks.add("images are missing and left out", image.name)
        return None
    except (OSError, DecodeError):
        remarks.add("images cannot be read and are left out", image.name)
        return None
    try:
        with boxes.open("rb") as opened:
            data = opened.read(MOST_BYTES + 1)
        # Entities could make gigabytes of a small file; no tool that writes boxes has any.
        if len(data) > MOST_BYTES or b"<!" in data.replace(b"<!--", b""):
            raise ValueError("too large, or with entities")
        root = ElementTree.fromstring(data)
        parsed = [_object(element) for element in root.iter("object")]
    except FileNotFoundError:
        remarks.add("images have no file of boxes and are left out", image.name)
        return None
    except (OSError, ElementTree.ParseError, ValueError):
        remarks.add("files of boxes cannot be read, and their images are left out", boxes.name)
        return None
    # VOC counts pixels from 1, both ends of a box included.
    drawn = [[x1 - 1, y1 - 1, x2, y2] for _, (x1, y1, x2, y2), _ in parsed]
    corners = upright(drawn, _size(root), (height, width), orientation(file), image.name, remarks)
    kept = list(usable(corners, height, width, boxes.name, remarks, empty=1.0))
    indices = [i for i, _ in kept]
    return Named(
        image, height, width, np.array([box for _, box in kept], np.float32).reshape(-1, 4),
        tuple(parsed[i][0] for i in indices), np.array([parsed[i][2] for i in indices], bool),
    )  # fmt: skip


def _size(root: ElementTree.Element) -> tuple[int, int]:
    """Returns (height, width) of an annotation's <size>; 0 for what it does not say."""
    texts = [(root.findtext(f"size/{name}") or "").strip() for name in ("height", "width")]
    height, width = (int(text) if text.isdecimal() else 0 for text in texts)
    return height, width


def _object(element: ElementTree.Element) -> tuple[str, list[float], bool]:
    """Returns name, corners and `difficult` of an <object>; raises ValueError if it lacks one."""
    box = element.find("bndbox")
    corners = [float(box.findtext(name) or "") for name in ("xmin", "ymin", "xmax", "ymax")] if box is not None else []
    name = (element.findtext("name") or "").strip()
    if not name or not corners:
        raise ValueError("an object without name or box")
    return name, corners, (element.findtext("difficult") or "0").strip() not in ("0", "")


def _labelled(image: Named, classes: Sequence[str], remarks: Remarks) -> AnnotatedImage:
    """Returns the image with labels for names; objects of other classes are left out and counted."""
    labels = {name: label for label, name in enumerate(classes)}
    for name in image.names:
        if name not in labels:
            remarks.add(
                f"objects of class {name!r}, which is none of {', '.join(classes[:5])}, are left out", image.path.name
            )
    known = np.array([name in labels for name in image.names], bool)
    boxes = image.boxes[known]
    if not len(boxes):
        remarks.add("images show no object and are background", image.path.name)
    return AnnotatedImage(
        image.path, image.height, image.width, boxes,
        np.array([labels[name] for name in image.names if name in labels], np.int32), image.difficult[known],
        np.prod(boxes[:, 2:] - boxes[:, :2], axis=1),
    )  # fmt: skip
