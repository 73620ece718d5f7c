"""Boxes as tools and people write them: what is read all the same, and what is refused or left out in plain words."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from resnet_jax.config import base_config
from resnet_jax.data.detection.coco import open_coco
from resnet_jax.data.detection.pipeline import open_boxes
from resnet_jax.data.detection.voc import open_voc
from resnet_jax.errors import UserError
from tests.data.detection import made
from tests.data.detection.test_files import SHOWN, said


def pair(root: Path, text: bytes, ending: str = ".xml") -> Path:
    """Writes train/a.png with the text of its file of boxes, train/b.png and val/c.png with a whole one each."""
    for part, name in (("train", "a"), ("train", "b"), ("val", "c")):
        made.draw(root / part / f"{name}.png", SHOWN[name])
        file = root / part / f"{name}{ending}"
        file.write_bytes(text if name == "a" else made.xml(SHOWN[name]).encode())
    return root


XML = made.xml(SHOWN["a"])


@pytest.mark.parametrize(
    "text",
    [
        XML.replace("><", ">\r\n<").encode(),
        b"\xef\xbb\xbf" + XML.encode(),
        XML.encode("utf-16"),
        b'<?xml version="1.0" encoding="windows-1252"?>' + XML.replace("><", ">\x80<", 1).encode("latin-1"),
        b"<!DOCTYPE annotation>" + XML.encode(),
        XML.replace("<difficult>0</difficult>", "").encode(),
        XML.replace("<difficult>0<", "<difficult>False<").encode(),
        XML.replace("<difficult>0<", "<difficult>Unspecified<").encode(),
    ],
)  # fmt: skip
@pytest.mark.parametrize("ending", [".xml", ".XML"])
def test_xml_as_tools_write_it(tmp_path: Path, text: bytes, ending: str) -> None:
    splits = open_voc(pair(tmp_path, text, ending))
    image = splits.train[0]
    assert image.boxes.tolist() == [[3, 4, 20, 18], [30, 10, 50, 40]] and not image.ignored.any()
    assert image.labels.tolist() == [2, 0] and splits.remarks == ()


@pytest.mark.parametrize(
    "text",
    [
        b'<?xml version="1.0" encoding="nobody"?>' + XML.encode(),
        b'<?xml version="1.0" encoding="gb2312"?>' + XML.encode(),
        ('<!DOCTYPE x [<!ENTITY e "red">]>' + XML.replace("red", "&e;")).encode("utf-16"),
        XML.replace("<xmin>4<", "<xmin>4,5<").encode(),
        XML.replace("<name>red</name>", "").encode(),
    ],
)
def test_xml_that_cannot_be_read(tmp_path: Path, text: bytes) -> None:
    splits = open_voc(pair(tmp_path, text))
    assert [image.path.name for image in splits.train] == ["b.png"] and said(splits, "1 files of boxes cannot be read")


def test_why_no_image_is_left(tmp_path: Path) -> None:
    pair(tmp_path, XML.encode())
    for name in "ab":
        (tmp_path / "train" / f"{name}.xml").unlink()
    with pytest.raises(UserError, match="no annotated image to train on; 2 images have no file of boxes"):
        open_voc(tmp_path)


def test_a_part_without_boxes_is_left_out(tmp_path: Path) -> None:
    """Test images whose boxes are kept from us, as VOC 2012's: val is evaluated on. Without val nothing is."""
    pair(tmp_path, XML.encode())
    made.draw(tmp_path / "test" / "t.png", SHOWN["a"])
    splits = open_voc(tmp_path)
    assert splits.evaluated_on == "validation" and said(splits, "1 parts have no file of boxes and are left out")
    (tmp_path / "val" / "c.xml").unlink()
    with pytest.raises(UserError, match="training images alone; .*held_out_share.*; 2 parts have no file of boxes"):
        open_voc(tmp_path)


def test_classes_that_no_test_image_shows(tmp_path: Path) -> None:
    """An AP of zero would be measured."""
    pair(tmp_path, XML.encode())
    (tmp_path / "val" / "c.xml").write_text(made.xml([("Red", (5, 5, 15, 15))]))
    data = base_config().data
    data.update({"name": "voc", "folder": str(tmp_path)})
    with pytest.raises(UserError, match="the validation images of .* show no object .*1 objects of class 'Red'"):
        open_boxes(data)


def test_images_beside_and_below_others(tmp_path: Path) -> None:
    """Folders in folders, and images that share a file of boxes, are said; images/ and annotations/ are read."""
    pair(tmp_path, XML.encode())
    made.draw(tmp_path / "train" / "deep" / "x.png", SHOWN["a"])
    made.draw(tmp_path / "train" / "a.bmp", SHOWN["a"])
    splits = open_voc(tmp_path)
    assert len(splits.train) == 3 and len(splits.remarks) == 2
    assert said(splits, "1 folders of images lie too deep") and said(splits, "1 images have the name of another one")
    for name in "abc":
        made.draw(tmp_path / "two" / "images" / f"{name}.png", SHOWN[name])
        (tmp_path / "two" / "annotations").mkdir(exist_ok=True)
        (tmp_path / "two" / "annotations" / f"{name}.xml").write_text(made.xml(SHOWN[name]))
    two = open_voc(tmp_path / "two", share=0.3)
    assert len(two.train) + len(two.test) == 3 and two.remarks == ()


def test_lists_of_other_tools(tmp_path: Path) -> None:
    """Names with blanks and with endings; the number behind a name; the folder above VOCdevkit/."""
    shown = {"a 1": SHOWN["a"], "b": SHOWN["b"], "c": SHOWN["c"]}
    made.write_voc(tmp_path / "VOCdevkit" / "VOC2007", {"train": ["a 1", "b.png"], "val": ["c  1"]}, shown)
    splits = open_voc(tmp_path)
    assert [image.path.stem for image in splits.train] == ["a 1", "b"] and splits.test[0].path.stem == "c"
    assert splits.remarks == ()


def test_a_year_that_lacks_a_list_is_said(tmp_path: Path) -> None:
    made.write_voc(tmp_path / "VOC2007", {"trainval": ["a"], "test": ["c"]}, {"a": SHOWN["a"], "c": SHOWN["c"]})
    made.write_voc(tmp_path / "VOC2012", {"train": ["b"]}, {"b": SHOWN["b"]})
    splits = open_voc(tmp_path)
    assert [image.path.stem for image in splits.train] == ["a"] and said(splits, "1 years have no list trainval.txt")


CROWD = {"iscrowd": 1, "segmentation": {"counts": [10, 5, 3057], "size": [48, 64]}}

#: An object's entry changed, and what it says: nothing, or why it is left out.
ENTRIES: list[tuple[dict[str, Any], str]] = [
    ({"bbox": None}, "no bbox of four numbers"),
    ({"bbox": []}, "no bbox of four numbers"),
    ({"bbox": ["x", 1, 2, 3]}, "no bbox of four numbers"),
    ({"bbox": ["3", "4", "17", "14"]}, ""),
    ({"area": None}, ""),
    ({"area": "large"}, ""),
    ({"id": None}, ""),
    ({"id": "first"}, ""),
    (CROWD, ""),
]


@pytest.mark.parametrize(("entry", "words"), ENTRIES)
def test_objects_of_coco_with_strange_fields(tmp_path: Path, entry: dict[str, Any], words: str) -> None:
    def change(record: dict[str, Any]) -> None:
        record["annotations"][0] |= entry
        if entry == {"id": None}:
            del record["annotations"][1]["id"], record["annotations"][2]["id"]

    splits = open_coco(edited(tmp_path, change))
    assert splits.train[0].boxes.tolist() == [[3, 4, 20, 18], [30, 10, 50, 40]][bool(words) :]
    assert splits.train[0].areas.tolist() == ([17 * 14] if "area" in entry else [7] * (not words)) + [7]
    assert len(splits.remarks) == bool(words) and (not words or said(splits, words))


@pytest.mark.parametrize(
    ("value", "crowd"),
    [(0, False), ("0", False), (None, False), (False, False), ("false", False), (1, True), ("1", True), (True, True)],
)
def test_crowds_as_tools_write_them(tmp_path: Path, value: Any, crowd: bool) -> None:
    """Text, too: an object called a crowd by mistake would be left out of training in silence."""
    splits = open_coco(edited(tmp_path, lambda record: record["annotations"][0].update(iscrowd=value)))
    assert splits.train[0].ignored.tolist() == [crowd, False]


def edited(root: Path, change: Callable[[dict[str, Any]], None]) -> Path:
    """Writes a set of COCO's, and changes the record of its training images."""
    made.write_coco(root, {"train": {"a": SHOWN["a"], "b": SHOWN["b"]}, "val": {"c": SHOWN["c"]}})
    file = root / "annotations" / "instances_train.json"
    record = json.loads(file.read_text())
    change(record)
    file.write_text(json.dumps(record))
    return root


@pytest.mark.parametrize(
    ("part", "entry", "words"),
    [
        ("images", {"file_name": 5}, "entry 1 of images has no file_name"),
        ("images", {"id": None}, "entry 1 of images has no id"),
        ("annotations", {"image_id": [1]}, "entry 1 of annotations has no image_id"),
        ("annotations", {"category_id": None}, "entry 1 of annotations has no category_id"),
        ("categories", {"name": None}, "entry 1 of categories has no name"),
        ("categories", {"id": 20}, "several categories have the id 20"),
    ],
)
def test_entries_that_coco_cannot_do_without(tmp_path: Path, part: str, entry: dict, words: str) -> None:
    with pytest.raises(UserError, match=words):
        open_coco(edited(tmp_path, lambda record: record[part][0].update(entry)))


@pytest.mark.parametrize("size", [{"height": None, "width": None}, {"height": 0, "width": 0}, {"height": 96}])
def test_the_size_of_a_png_is_that_of_its_file(tmp_path: Path, size: dict[str, Any]) -> None:
    splits = open_coco(edited(tmp_path, lambda record: record["images"][0].update(size)))
    assert (splits.train[0].height, splits.train[0].width) == (48, 64)
    assert splits.train[0].boxes.tolist() == [[3, 4, 20, 18], [30, 10, 50, 40]]
    assert said(splits, "another size") == (size == {"height": 96})


def test_folders_in_names_of_files(tmp_path: Path) -> None:
    """Two images of one name, in folders; names of Windows; and a folder that is not there."""

    def change(record: dict[str, Any]) -> None:
        for image, name in zip(record["images"], ("left/0.png", "right\\0.png"), strict=True):
            image["file_name"] = name
        record["images"].append({"id": 7, "file_name": "C:\\mine\\b.png", "height": 48, "width": 64})
        record["images"].append({"id": 8, "file_name": "gone/0.png", "height": 48, "width": 64})

    edited(tmp_path, change)
    for name, side in (("a", "left"), ("b", "right")):
        made.draw(tmp_path / "train" / side / "0.png", SHOWN[name])
    splits = open_coco(tmp_path)
    assert [str(image.path.relative_to(tmp_path / "train")) for image in splits.train] == [
        "left/0.png", "right/0.png", "b.png"
    ]  # fmt: skip
    assert splits.train[1].boxes.tolist() == [[0, 0, 64, 48]] and said(splits, "1 images are missing")


def test_coco_without_validation_images(tmp_path: Path) -> None:
    """What the error asks for is what helps: a share is held out."""
    images = {str(i): SHOWN["a"] for i in range(10)}
    made.write_coco(tmp_path, {"train": images})
    with pytest.raises(UserError, match=r"held_out_share=0\.2"):
        open_coco(tmp_path)
    splits = open_coco(tmp_path, share=0.2)
    names = [{image.path.name for image in part} for part in (splits.train, splits.test)]
    assert splits.evaluated_on == "held_out" and [len(part) for part in names] == [8, 2] and not names[0] & names[1]


def test_categories(tmp_path: Path) -> None:
    """A name that stands twice is one class; ids may be text; a class without objects is said, as Roboflow's first.

    So are names that differ in capital letters.
    """

    def change(record: dict[str, Any]) -> None:
        record["categories"] += [
            {"id": 99, "name": "red"},
            {"id": 98, "name": "Red"},
            {"id": "0", "name": "all", "supercategory": "none"},
        ]

    data = base_config().data
    data.update({"name": "coco", "folder": str(edited(tmp_path, change))})
    splits = open_boxes(data)
    assert splits.classes == ("blue", "green", "red", "Red", "all") and splits.train[0].labels.tolist() == [2, 0]
    assert splits.remarks == (
        "names 'red' and 'Red' differ in case alone, and are two classes",
        "2 of 5 classes have no object to train on: Red, all",
    )
    with data.unlocked():
        data.classes = ("red", "red")
    with pytest.raises(UserError, match="different names"):
        open_boxes(data)


def test_crowds_alone_are_nothing_to_train_on(tmp_path: Path) -> None:
    def change(record: dict[str, Any]) -> None:
        for one in record["annotations"]:
            one["iscrowd"] = 1

    data = base_config().data
    data.update({"name": "coco", "folder": str(edited(tmp_path, change))})
    with pytest.raises(UserError, match="show no object .* not difficult or a crowd"):
        open_boxes(data)
