"""VOC's and COCO's files: what is read, and that whatever is left out is counted and said."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import ExifTags, Image, ImageOps

from resnet_jax.data.detection.annotations import BoxSplits
from resnet_jax.data.detection.coco import open_coco
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


def test_difficult_objects_are_marked(tmp_path: Path) -> None:
    made.write_voc(tmp_path, {"train": ["a"], "test": ["c"]}, SHOWN)
    (tmp_path / "Annotations" / "c.xml").write_text(made.xml([*SHOWN["c"], *SHOWN["a"]], difficult=[1]))
    assert open_voc(tmp_path).test[0].ignored.tolist() == [False, True, False]


@pytest.mark.parametrize(
    ("lists", "words"),
    [
        ({}, "has no list of training images: ImageSets/Main/trainval.txt or train.txt"),
        ({"test": ["c"]}, "has no list of training images"),
        ({"train": ["gone"], "val": ["c"]}, "no annotated image to train on; 1 images .*gone"),
        ({"train": ["d"], "val": ["c"]}, "the training images of .* show no object"),
    ],
)
def test_refusals(tmp_path: Path, lists: dict, words: str) -> None:
    made.write_voc(tmp_path, lists, SHOWN)
    with pytest.raises(UserError, match=words):
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
