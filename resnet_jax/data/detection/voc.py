"""Reads boxes in the layout of PASCAL VOC's devkit, or as the same XML files beside a user's own images."""

import dataclasses
from collections.abc import Collection, Iterable, Sequence
from pathlib import Path
from xml.etree import ElementTree

import numpy as np

from resnet_jax.data.detection.annotations import AnnotatedImage, BoxSplits, Remarks, held_out, upright, usable
from resnet_jax.data.folders import split_folders
from resnet_jax.data.held_out_split import choose_split
from resnet_jax.data.image_files import DecodeError, image_size, orientation
from resnet_jax.data.label_files import read_text
from resnet_jax.data.listing import ENDINGS, list_folder
from resnet_jax.errors import UserError

#: What <difficult> may say, in small letters, of an object that is; some tools write False or Unspecified, too.
DIFFICULT = frozenset({"1", "true", "yes"})

#: Bytes of the largest XML file that is read.
MOST_BYTES = 2**24

ANNOTATIONS, IMAGES, LISTS = "Annotations", "JPEGImages", Path("ImageSets", "Main")

#: Names of the folders of XML files and of images in a user's own folder, the devkit's first.
OWN_ANNOTATIONS, OWN_IMAGES = (ANNOTATIONS, "annotations"), (IMAGES, "images")


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
      - a folder of such years, VOC2007/ and VOC2012/, all of which are trained on: "07+12"; or that of VOCdevkit/;
      - train/ and val/ or test/, or images alone, of which a share is held out. In each, an XML file lies beside its
        image, or images and XML files in JPEGImages/ and Annotations/, or images/ and annotations/.

    Args:
      root: the folder.
      eval_split, share: see `held_out_split.choose_split`.
      classes: names by label; unset: those in the training images, sorted.

    Raises:
      UserError: for another layout, and for a part without an image that can be used.
    """
    remarks = Remarks()
    parts = _devkit(root, remarks) or _folders(root, remarks)
    whole = "trainval" if "trainval" in parts else "train"
    for part in sorted(parts.keys() & {"test", "validation"}) if _annotated(parts[whole]) else ():
        if not _annotated(parts[part]):  # as the test images of VOC 2012
            remarks.add("parts have no file of boxes and are left out", part)
            del parts[part]
    there = parts.keys() & {"test", "validation"}
    evaluated_on = choose_split(str(root), there, eval_split, share > 0, remarks.sentences())
    trained = "train" if evaluated_on == "validation" and "train" in parts else whole
    years = {part: {boxes.parents[1].name for boxes, _ in parts.get(part, ())} for part in ("train", "trainval")}
    for year in sorted(set().union(*years.values()) - years[trained]):
        remarks.add(f"years have no list {trained}.txt, as others have, and are not trained on", year)
    train = _read(parts[trained], remarks)
    if evaluated_on == "held_out":
        train, test = held_out(train, share)
    else:
        test = _read(parts[evaluated_on], remarks)
    if not train or not test:
        raise remarks.refusal(f"{root} has no annotated image to {'evaluate on' if train else 'train on'}")
    known = tuple(classes) or tuple(sorted({name for image in train for name in image.names}))
    if not known:
        raise remarks.refusal(f"the training images of {root} show no object")
    labelled = [[_labelled(image, known, remarks) for image in part] for part in (train, test)]
    return BoxSplits(labelled[0], labelled[1], known, evaluated_on, remarks.sentences())


#: (file of boxes, file of the image) of each image of a part.
Pairs = list[tuple[Path, Path]]


def _devkit(root: Path, remarks: Remarks) -> dict[str, Pairs]:
    """Returns the lists of one or several years of the devkit; none for another folder."""
    years = _years(root) or _years(root / "VOCdevkit")
    parts: dict[str, Pairs] = {}
    for year in years:
        images = {path.stem: path for path in (list_folder(year / IMAGES).images if (year / IMAGES).is_dir() else ())}
        boxes = _xml_files(year / ANNOTATIONS)
        for part, file in (("train", "train"), ("validation", "val"), ("trainval", "trainval"), ("test", "test")):
            if (path := year / LISTS / f"{file}.txt").is_file():
                lines = filter(None, map(str.strip, read_text(path, str(path)).split("\n")))
                for name in _once((_listed(line, images) for line in lines), remarks):
                    image = images.get(name, year / IMAGES / f"{name}.jpg")
                    parts.setdefault(part, []).append((boxes.get(name, year / ANNOTATIONS / f"{name}.xml"), image))
    if years and not (parts.get("trainval") or parts.get("train")):
        raise UserError(f"{root} has no list of training images: {LISTS}/trainval.txt or train.txt")
    return parts


def _years(root: Path) -> list[Path]:
    """Returns a folder itself, and those in it, that have the devkit's lists."""
    if not root.is_dir():
        return []
    return [year for year in (root, *sorted(root.iterdir())) if (year / LISTS).is_dir()]


def _annotated(pairs: Pairs) -> bool:
    return any(boxes.is_file() for boxes, _ in pairs)


def _xml_files(folder: Path) -> dict[str, Path]:
    """Returns the XML files of a folder by their names without the ending; none if it is not there."""
    others = list_folder(folder).others if folder.is_dir() else []
    return {path.stem: path for path in others if path.suffix.lower() == ".xml"}


def _listed(line: str, images: Collection[str]) -> str:
    """Returns the image that a line names: the line, or its first word (behind which VOC may have 1 or -1)."""
    words = (line, line.split()[0])
    stems = (Path(word).stem for word in words if Path(word).suffix.lower() in ENDINGS)
    return next((name for name in (*words, *stems) if name in images), words[1])


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
        boxes, images = (
            next((folder / name for name in names if (folder / name).is_dir()), folder)
            for names in (OWN_ANNOTATIONS, OWN_IMAGES)
        )
        files, inside, _ = list_folder(images)
        xml_files = _xml_files(boxes)
        found[part] = [(xml_files.get(path.stem, boxes / f"{path.stem}.xml"), path) for path in files]
        stems: set[str] = set()
        for path in files:
            if path.stem in stems:
                remarks.add("images have the name of another one but for its ending, and the same boxes", path.name)
            stems.add(path.stem)
        for path in inside:
            if list_folder(path).images:
                remarks.add("folders of images lie too deep and are left out", path)
        for stem in sorted(xml_files.keys() - stems):
            remarks.add("annotations have no image and are left out", xml_files[stem].name)
        if not files:
            raise remarks.refusal(f"{images} holds no image ({', '.join(sorted(ENDINGS))}) with a .xml file of its "
                                  "boxes")  # fmt: skip
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
        # Entities could make gigabytes of a small file; no tool that writes boxes has any. UTF-16 has zero bytes.
        if len(data) > MOST_BYTES or b"<!ENTITY" in data.replace(b"\0", b""):
            raise ValueError("too large, or with entities")
        root = ElementTree.fromstring(data)
        parsed = [_object(element) for element in root.iter("object")]
    except FileNotFoundError:
        remarks.add("images have no file of boxes and are left out", image.name)
        return None
    except (OSError, ElementTree.ParseError, ValueError, LookupError):  # the last for an encoding that nobody knows
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
    return name, corners, (element.findtext("difficult") or "0").strip().lower() in DIFFICULT


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
