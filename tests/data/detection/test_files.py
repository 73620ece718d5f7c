"""VOC's and COCO's files: what is read, and that whatever is left out is counted and said."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import ExifTags, Image, ImageOps

from resnet_jax.data.detection.annotations import BoxSplits
from resnet_jax.config import base_config
from resnet_jax.data.detection.coco import open_coco
from resnet_jax.data.detection.pipeline import open_boxes
from resnet_jax.data.detection.voc import open_voc
from resnet_jax.errors import UserError
from tests.data.detection import made

BCCD = Path(__file__).parents[3] / ".." / "shared" / "data" / "bccd"

SHOWN = {
    "a": [("red", (3, 4, 20, 18)), ("blue", (30, 10, 50, 40))],
    "b": [("green", (0, 0, 64, 48))],
    "c": [("red", (5, 5, 15, 15))],
    "d": [],
}


def said(splits: BoxSplits, words: str) -> bool:
    return any(words in remark for remark in splits.remarks)


def test_devkit(tmp_path: Path) -> None:
    """Pixels counted from 1 become corners counted from 0; what is evaluated on chooses what is trained on."""
    lists = {"train": ["a"], "val": ["b"], "trainval": ["a", "b"], "test": ["c", "d"]}
    made.write_voc(tmp_path, lists, SHOWN)
    splits = open_voc(tmp_path)
    assert splits.evaluated_on == "test" and splits.classes == ("blue", "green", "red")
    assert [image.path.stem for image in splits.train] == ["a", "b"]
    np.testing.assert_array_equal(splits.train[0].boxes, [(3, 4, 20, 18), (30, 10, 50, 40)])
    assert splits.train[0].labels.tolist() == [2, 0] and splits.train[0].areas.tolist() == [17 * 14, 20 * 30]
    assert splits.test[1].boxes.shape == (0, 4) and said(splits, "1 images show no object")
    validated = open_voc(tmp_path, "validation")
    assert [image.path.stem for image in validated.train] == ["a"] and validated.test[0].path.stem == "b"


def test_two_years_are_joined(tmp_path: Path) -> None:
    made.write_voc(tmp_path / "VOC2007", {"trainval": ["a"], "test": ["c"]}, {"a": SHOWN["a"], "c": SHOWN["c"]})
    made.write_voc(tmp_path / "VOC2012", {"trainval": ["b"]}, {"b": SHOWN["b"]})
    splits = open_voc(tmp_path)
    assert [image.path.stem for image in splits.train] == ["a", "b"] and len(splits.test) == 1


def test_own_folders(tmp_path: Path) -> None:
    """XML files beside the images, in parts or with a share held out."""
    for part, names in (("train", "ab"), ("val", "c")):
        for name in names:
            made.draw(tmp_path / "parts" / part / f"{name}.png", SHOWN[name])
            (tmp_path / "parts" / part / f"{name}.xml").write_text(made.xml(SHOWN[name]))
    splits = open_voc(tmp_path / "parts")
    assert splits.evaluated_on == "validation" and len(splits.train) == 2 and len(splits.test) == 1
    for i in range(10):
        made.draw(tmp_path / "flat" / f"{i}.png", SHOWN["a"])
        (tmp_path / "flat" / f"{i}.xml").write_text(made.xml(SHOWN["a"]))
    held = open_voc(tmp_path / "flat", share=0.2)
    assert held.evaluated_on == "held_out" and (len(held.train), len(held.test)) == (8, 2)
    with pytest.raises(UserError, match="held_out_share"):
        open_voc(tmp_path / "flat")


WRONG = {
    "boxes without area": [("red", (5, 5, 6, 6))],  # the corners of the file are the same
    "lies ahead of the other": [("red", (20, 5, 10, 15))],
    "outside their image": [("red", (70, 5, 90, 15))],
    "reach beyond their image are cut": [("red", (50, 5, 90, 15))],
    "coordinates that are no numbers": [("red", (5, 5, float("nan"), 15))],
}


@pytest.mark.parametrize("words", WRONG)
def test_wrong_boxes(tmp_path: Path, words: str) -> None:
    shown = {"a": SHOWN["a"], "bad": [("blue", (1, 1, 9, 9)), *WRONG[words]], "c": SHOWN["c"]}
    made.write_voc(tmp_path, {"train": ["a", "bad"], "val": ["c"]}, {"a": SHOWN["a"], "c": SHOWN["c"], "bad": []})
    (tmp_path / "Annotations" / "bad.xml").write_text(made.xml(shown["bad"]))
    splits = open_voc(tmp_path)
    assert said(splits, "1 boxes") and said(splits, words) and said(splits, "bad.xml"), splits.remarks
    boxes = splits.train[1].boxes
    assert len(boxes) == (2 if "cut" in words else 1) and np.isfinite(boxes).all() and boxes.max() <= 64


def test_wrong_files(tmp_path: Path) -> None:
    lists = {"train": ["a", "a", "gone", "lonely", "broken", "bomb", "b", "text"], "val": ["c", "d"]}
    shown = {**SHOWN, "lonely": [], "broken": [], "bomb": [], "text": []}
    made.write_voc(tmp_path, lists, shown)
    (tmp_path / "Annotations" / "gone.xml").write_text(made.xml([]))
    (tmp_path / "Annotations" / "lonely.xml").unlink()
    (tmp_path / "Annotations" / "broken.xml").write_text("<annotation><object></annotation>")
    (tmp_path / "JPEGImages" / "text.png").write_text("no image")
    entities = '<!DOCTYPE x [<!ENTITY a "aaaa"><!ENTITY b "&a;&a;">]>'
    (tmp_path / "Annotations" / "bomb.xml").write_text(entities + made.xml([("&b;", (1, 1, 5, 5))]))
    (tmp_path / "Annotations" / "d.xml").write_text(made.xml([("purple", (1, 1, 9, 9)), ("red", (1, 1, 9, 9))]))
    splits = open_voc(tmp_path)
    assert [image.path.stem for image in splits.train] == ["a", "b"]
    for words in ("1 names stand twice", "1 images are missing", "1 images have no file of boxes",
                  "2 files of boxes cannot be read", "1 images cannot be read", "'purple'"):  # fmt: skip
        assert said(splits, words), (words, splits.remarks)
    assert splits.test[1].labels.tolist() == [2]


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
        b'<?xml version="1.0" encoding="windows-1252"?>' + XML.replace("<annotation>", "<annotation>\x80").encode("latin-1"),
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


def test_difficult_objects_are_marked(tmp_path: Path) -> None:
    made.write_voc(tmp_path, {"train": ["a"], "test": ["c"]}, SHOWN)
    (tmp_path / "Annotations" / "c.xml").write_text(made.xml([*SHOWN["c"], *SHOWN["a"]], difficult=[1]))
    assert open_voc(tmp_path).test[0].ignored.tolist() == [False, True, False]


@pytest.mark.parametrize(
    "lists", [{}, {"test": ["c"]}, {"train": ["gone"], "val": ["c"]}, {"train": ["d"], "val": ["c"]}]
)
def test_refusals(tmp_path: Path, lists: dict) -> None:
    made.write_voc(tmp_path, lists, SHOWN)
    with pytest.raises(UserError):
        open_voc(tmp_path)


def test_coco(tmp_path: Path) -> None:
    """Classes are ordered by their ids; the outline's area is kept; a crowd is marked."""
    train = {"a": SHOWN["a"], "d": []}
    made.write_coco(tmp_path, {"train2017": train, "val2017": {"c": SHOWN["c"]}})
    splits = open_coco(tmp_path)
    assert splits.classes == ("blue", "green", "red") and splits.evaluated_on == "validation"
    np.testing.assert_array_equal(splits.train[0].boxes, [(3, 4, 20, 18), (30, 10, 50, 40)])
    assert splits.train[0].labels.tolist() == [2, 0] and splits.train[0].areas.tolist() == [7, 7]
    assert said(splits, "1 images show no object")


def test_wrong_coco_files(tmp_path: Path) -> None:
    crowd = {"id": 9, "image_id": 100, "category_id": 10, "bbox": [1, 1, 9, 9], "iscrowd": 1, "area": 50}
    more = {
        "images": [{"id": 100, "file_name": "again.png", "height": 48, "width": 64},
                   {"id": 5, "file_name": "gone.png", "height": 48, "width": 64}],
        "annotations": [crowd, dict(crowd, id=0), dict(crowd, id=50, category_id=77), dict(crowd, id=51, image_id=6),
                        dict(crowd, id=52, bbox=[5, 5, 0, 3]), dict(crowd, id=53, bbox=[5, 5, -2, 3])],
    }  # fmt: skip
    made.write_coco(tmp_path, {"train": {"a": SHOWN["a"]}, "val": {"c": SHOWN["c"]}}, **more)
    splits = open_coco(tmp_path)
    assert len(splits.train) == 1 and splits.train[0].ignored.tolist() == [False, False, True]
    for words in ("id of another one", "images are missing", "unknown classes", "images that the file does not have",
                  "objects have the id", "without area", "lies ahead"):  # fmt: skip
        assert said(splits, words), (words, splits.remarks)
    (tmp_path / "annotations" / "instances_train.json").write_text("[]")
    with pytest.raises(UserError, match="no file of COCO's"):
        open_coco(tmp_path)


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
    """A name that stands twice is one class; ids may be text; a class without objects is said, as Roboflow's first."""

    def change(record: dict[str, Any]) -> None:
        record["categories"] += [{"id": 99, "name": "red"}, {"id": "0", "name": "all", "supercategory": "none"}]

    data = base_config().data
    data.update({"name": "coco", "folder": str(edited(tmp_path, change))})
    splits = open_boxes(data)
    assert splits.classes == ("blue", "green", "red", "all") and splits.train[0].labels.tolist() == [2, 0]
    assert splits.remarks == ("1 of 4 classes have no object to train on: all",)
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


@pytest.mark.skipif(not BCCD.is_dir(), reason="shared/data/bccd is not there")
def test_blood_cells() -> None:
    """The counts of the set's README: 364 photographs, 4,888 boxes, of which two are points."""
    splits = open_voc(BCCD)
    assert (len(splits.train), len(splits.test)) == (292, 72) and splits.classes == ("Platelets", "RBC", "WBC")
    assert sum(len(image.labels) for image in (*splits.train, *splits.test)) == 4886
    assert splits.remarks == ("2 boxes without area are left out, as in BloodImage_00338.xml",)


#: A rectangle in a photograph as its file stores it: whole blocks of a JPEG.
STORED = [8, 16, 40, 32]


def photograph(path: Path, turn: int) -> list[int]:
    """Writes a JPEG of 48 rows of 64 pixels that EXIF turns, with a white rectangle; returns its corners upright."""
    stored = np.zeros((48, 64), np.uint8)
    stored[16:32, 8:40] = 255
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = turn
    Image.fromarray(stored).convert("RGB").save(path, exif=exif, quality=95)
    shown = ImageOps.exif_transpose(Image.open(path)).convert("L").point(lambda value: 255 * (value > 128))
    return list(shown.getbbox())


def opened(root: Path, layout: str, box: list[int], size: tuple[int, int]) -> BoxSplits:
    """Opens a set whose training image, train/a.jpg, has one box, and an image of that size by its annotations."""
    shown = ("red", tuple(box))
    if layout == "coco":
        made.write_coco(root, {"train": {"a": [shown]}, "val": {"c": SHOWN["c"]}})
        file = root / "annotations" / "instances_train.json"
        record = json.loads(file.read_text())
        record["images"][0] |= {"file_name": "a.jpg", "height": size[0], "width": size[1]}
        file.write_text(json.dumps(record))
        return open_coco(root)
    (root / "train" / "a.xml").write_text(made.xml([shown], size=size))
    made.draw(root / "val" / "c.png", SHOWN["c"])
    (root / "val" / "c.xml").write_text(made.xml(SHOWN["c"]))
    return open_voc(root)


@pytest.mark.parametrize("turn", range(1, 9))
@pytest.mark.parametrize("layout", ["voc", "coco"])
def test_photographs_that_exif_turns(tmp_path: Path, layout: str, turn: int) -> None:
    """A box that was drawn on the file as it is stored is turned with it, and one that was drawn upright stays.

    The size in the annotations tells, of a turn by a quarter. Of other turns it does not, and that is said.
    """
    (tmp_path / "train").mkdir()
    upright = photograph(tmp_path / "train" / "a.jpg", turn)
    size = (64, 48) if turn > 4 else (48, 64)
    for drawn, said_size in ((STORED, (48, 64)), (upright, size)):
        splits = opened(tmp_path, layout, drawn, said_size)
        (image,) = splits.train
        assert (image.height, image.width) == size
        assert image.boxes.tolist() == [upright if turn > 4 else drawn]
        with_them = turn > 4 and drawn is STORED
        assert len(splits.remarks) == (with_them or 1 < turn <= 4)
        assert said(splits, "1 images are turned by their EXIF note, and their boxes with them") == with_them
        assert said(splits, "in a way that no size tells") == (1 < turn <= 4)


def test_a_turned_photograph_whose_size_is_not_said(tmp_path: Path) -> None:
    (tmp_path / "train").mkdir()
    upright = photograph(tmp_path / "train" / "a.jpg", 6)
    splits = opened(tmp_path, "voc", upright, (0, 0))
    assert splits.train[0].boxes.tolist() == [upright] and said(splits, "in a way that no size tells")


@pytest.mark.parametrize("layout", ["voc", "coco"])
def test_images_of_another_size_than_said(tmp_path: Path, layout: str) -> None:
    (tmp_path / "train").mkdir()
    photograph(tmp_path / "train" / "a.jpg", 1)
    splits = opened(tmp_path, layout, STORED, (96, 128))
    assert (splits.train[0].height, splits.train[0].width) == (48, 64) and splits.train[0].boxes.tolist() == [STORED]
    assert splits.remarks == (
        "1 images have another size than their annotations say; boxes are taken as pixels of the image, as in a.jpg",
    )


def test_what_other_systems_leave_in_a_folder(tmp_path: Path) -> None:
    """Folders in capitals and resource forks, as in folders of classes; lists with a byte-order mark."""
    for part, names in (("Train", "ab"), ("VAL", "c")):
        for name in names:
            made.draw(tmp_path / part / f"{name}.png", SHOWN[name])
            (tmp_path / part / f"{name}.xml").write_text(made.xml(SHOWN[name]))
            for ending in ("png", "xml"):
                (tmp_path / part / f"._{name}.{ending}").write_bytes(b"fork")
    splits = open_voc(tmp_path)
    assert [image.path.name for image in splits.train] == ["a.png", "b.png"] and splits.remarks == ()
    assert [image.path.name for image in splits.test] == ["c.png"] and splits.evaluated_on == "validation"

    devkit = made.write_voc(tmp_path / "devkit", {"train": ["a"], "val": ["c"]}, {"a": SHOWN["a"], "c": SHOWN["c"]})
    (devkit / "ImageSets" / "Main" / "train.txt").write_bytes(b"\xef\xbb\xbfa\r\n")
    assert [image.path.name for image in open_voc(devkit).train] == ["a.png"]
