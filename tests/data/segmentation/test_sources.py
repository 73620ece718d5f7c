"""Every layout, and what is odd in a folder: counted and said."""

import struct
from io import BytesIO

import numpy as np
import pytest
from ml_collections import ConfigDict
from PIL import Image
from scipy import io

from resnet_jax.config import base_config
from resnet_jax.data.imagenet.loaders import Unreadable
from resnet_jax.data.imagenet.source import RecordError
from resnet_jax.data.segmentation import cityscapes
from resnet_jax.data.segmentation.loaders import PairTestLoader, PairTrainLoader
from resnet_jax.data.segmentation.masks import labels_table, read_mask
from resnet_jax.data.segmentation.sources import open_pairs
from resnet_jax.errors import UserError
from tests.data.segmentation.made import shapes_folder, write

RNG = np.random.default_rng(0)
IMAGE = RNG.integers(0, 256, (6, 8, 3), dtype=np.uint8)


def data(name: str, root, **fields) -> ConfigDict:
    found = base_config().data
    found.update({"name": name, "data_dir": str(root)} | fields)
    return found


def mask_of(values, size=(6, 8), dtype=np.uint8):
    return RNG.choice(np.array(values, dtype), size)


def voc(root, train=("a", "b"), val=("c",), images=("a", "b", "c", "d", "e")):
    lists = root / "VOCdevkit/VOC2012/ImageSets/Segmentation"
    lists.mkdir(parents=True)
    for part, names in (("train", train), ("val", val)):
        (lists / f"{part}.txt").write_text("\n".join(names) + "\n")
    masks = {name: mask_of([0, 1, 20, 255]) for name in (*train, *val)}
    for name in images:
        write(lists.parents[1] / f"JPEGImages/{name}.jpg", IMAGE)
    for name, mask in masks.items():
        write(lists.parents[1] / f"SegmentationClass/{name}.png", mask, palette=True)
    return masks


def test_voc(tmp_path):
    masks = voc(tmp_path)
    for root in (tmp_path, tmp_path / "VOCdevkit/VOC2012"):
        splits = open_pairs(data("voc2012", root))
        assert splits.train.names == ["a", "b"] and splits.test.names == ["c"]
        assert (splits.evaluated_on, splits.remarks, splits.train.num_classes) == ("validation", (), 21)
        for source in (splits.train, splits.test):
            for k, name in enumerate(source.names):
                pixels, labels = source.pair(k)
                assert np.array_equal(labels, masks[name]) and pixels.shape == (6, 8, 3)


def test_sbd_adds_all_but_the_images_of_val(tmp_path):
    """Each in one of its lists; VOC's own mask where both have one."""
    masks = voc(tmp_path)
    sbd = tmp_path / "benchmark_RELEASE/dataset"
    (sbd / "cls").mkdir(parents=True)
    extra = {name: mask_of([0, 3]) for name in ("a", "c", "d", "e")}
    for name, mask in extra.items():
        record = np.zeros((1, 1), [("Segmentation", object)])
        record[0, 0]["Segmentation"] = mask
        io.savemat(sbd / f"cls/{name}.mat", {"GTcls": record})
    (sbd / "train.txt").write_text("a\nd\n")
    (sbd / "val.txt").write_text("c\ne\nf\n")
    splits = open_pairs(data("voc2012", tmp_path, sbd=str(sbd)))
    assert splits.train.names == ["a", "b", "d", "e"] and splits.test.names == ["c"]
    for name, expected in (masks | {"d": extra["d"], "e": extra["e"]}).items():
        source = splits.test if name == "c" else splits.train
        assert np.array_equal(source.pair(source.names.index(name))[1], expected), name
    assert splits.remarks == ("1 images of voc2012 lack their file or their mask and are left out: f",)


def test_cityscapes(tmp_path):
    """The ids of its benchmark's classes (Cordts et al. 2016) become labels in their order; others are ignored."""
    ids = mask_of([0, 7, 8, 18, 33, 255])
    for part, city in (("train", "aachen"), ("val", "ulm")):
        write(tmp_path / f"leftImg8bit/{part}/{city}/{city}_0_leftImg8bit.png", IMAGE)
        write(tmp_path / f"gtFine/{part}/{city}/{city}_0_gtFine_labelIds.png", ids)
    splits = open_pairs(data("cityscapes", tmp_path))
    assert splits.train.names == ["aachen_0"] and splits.test.names == ["ulm_0"]
    expected = np.select([ids == 7, ids == 8, ids == 33], [0, 1, 18], 255)
    assert np.array_equal(splits.test.pair(0)[1], expected)
    assert len(cityscapes.CLASSES) == len(cityscapes.IDS) == 19


def test_a_folder_of_ones_own(tmp_path):
    splits = open_pairs(data("image_masks", shapes_folder(tmp_path)))
    assert (len(splits.train), len(splits.test), splits.evaluated_on) == (6, 3, "validation")
    assert splits.train.classes == ("ground", "bright", "dark")
    assert set(np.unique(splits.train.pair(0)[1])) == {0, 1, 2, 255}


def test_without_val_a_share_is_held_out(tmp_path):
    root = shapes_folder(tmp_path, train=10, val=1) / "train"
    with pytest.raises(UserError, match="held_out_share"):
        open_pairs(data("image_masks", root, classes=("a", "b", "c")))
    splits = open_pairs(data("image_masks", root, classes=("a", "b", "c"), held_out_share=0.3))
    assert (len(splits.train), len(splits.test), splits.evaluated_on) == (7, 3, "held_out")
    assert set(splits.train.names).isdisjoint(splits.test.names)


def test_instances_are_the_foreground(tmp_path):
    maps = mask_of([0, 1, 255, 300, 65535], dtype=np.uint16)
    for part in ("train", "val"):
        write(tmp_path / part / "images/x.png", IMAGE)
        write(tmp_path / part / "instances/x.png", maps)
    splits = open_pairs(data("image_masks", tmp_path, instances=True))
    assert splits.train.classes == ("background", "foreground")
    assert np.array_equal(splits.train.pair(0)[1], maps > 0)


def test_values_of_masks_are_named(tmp_path):
    """A mask of 0 and 255: black and white, of 8 bits or of 1."""
    mask = mask_of([0, 255, 77])
    for part in ("train", "val"):
        write(tmp_path / part / "images/x.png", IMAGE)
        write(tmp_path / part / "masks/x.png", mask)
    splits = open_pairs(data("image_masks", tmp_path, classes=("no", "yes"), mask_values=(0, 255)))
    assert splits.train.num_classes == 2
    assert np.array_equal(splits.train.pair(0)[1], np.select([mask == 0, mask == 255], [0, 1], 255))


def test_white_that_would_be_ignored_is_said(tmp_path):
    """All that would be trained on is the background."""
    write(tmp_path / "images/x.png", IMAGE)
    write(tmp_path / "masks/x.png", mask_of([0, 255]))
    with pytest.raises(UserError, match=r"mask_values=\(0,255\)"):
        open_pairs(data("image_masks", tmp_path, classes=("no", "yes"), held_out_share=0.5))


def test_names_that_stand_alone_are_counted_and_said(tmp_path):
    root = shapes_folder(tmp_path, train=4)
    (root / "train/masks/1.png").unlink()
    (root / "train/images/2.png").unlink()
    (root / "train/images/notes.txt").write_text("not an image")
    splits = open_pairs(data("image_masks", root))
    assert splits.train.names == ["0", "3"]
    assert splits.remarks == (
        f"1 files of {root}/train/images have no mask and are left out: 1",
        f"1 files of {root}/train/masks have no image and are left out: 2",
    )


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda path: path.write_bytes(path.read_bytes()[:-40]), "mask .*"),
        (lambda path: path.unlink(), "mask .*"),
        (lambda path: write(path, IMAGE), "mask .* is of colours .RGB."),
        (lambda path: write(path, np.full((32, 32), 9, np.uint8)), "has pixels of 9, which is no class"),
        (lambda path: write(path, np.zeros((32, 31), np.uint8)), r"\(32, 32\) rows and columns, and its mask \(32, 31"),
    ],
)
def test_a_bad_mask_is_said_and_left_out(tmp_path, spoil, message):
    """In training the next image stands in; of the evaluation none of its pixels count."""
    root = shapes_folder(tmp_path)
    splits = open_pairs(data("image_masks", root))
    for part in ("train", "val"):
        spoil(root / part / "masks/0.png")
    with pytest.raises(RecordError, match=message):
        splits.train.pair(0)
    how = {"scale": (1.0, 1.0), "scale_from": 0, "flip": False, "fill": (0, 0, 0), "workers": 1}
    loader = PairTrainLoader(splits.train, seed=0, batch_size=6, rows=(0, 6), size=32, **how)
    images, labels = loader.batches([0])
    assert images.shape == (1, 6, 32, 32, 3) and set(np.unique(labels)) == {0, 1, 2, 255}
    assert len(loader.unreadable) == 1 and "training image 0 cannot be read" in loader.unreadable.new_warnings()[0]
    tester = PairTestLoader(splits.test, Unreadable(), 1)
    assert tester.sizes() == [(32, 32), (32, 40), (32, 32)]


def bmp_of(height: int, width: int) -> bytes:
    """A grey BMP of 4 by 4 pixels that claims to have more."""
    buffer = BytesIO()
    Image.fromarray(np.zeros((4, 4), np.uint8)).save(buffer, "BMP")
    return buffer.getvalue()[:18] + struct.pack("<ii", width, height) + buffer.getvalue()[26:]


def test_whatever_is_wrong_with_a_mask_is_said(tmp_path):
    """Pillow and SciPy raise errors of many types: such a mask must not end a training."""
    whole = BytesIO()
    io.savemat(whole, {"GTcls": {"Segmentation": mask_of([0, 1], (40, 50))}}, do_compression=True)
    packed = bytearray(whole.getvalue())
    packed[200:210] = bytes(10)
    for name, content in (("0.mat", b""), ("1.mat", bytes(packed)), ("2.bmp", bmp_of(20_000, 20_000))):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(RecordError, match=f"mask .*{name}: "):
            read_mask(tmp_path / name, labels_table(2))


def test_a_bad_image_counts_and_is_shown_grey(tmp_path):
    from resnet_jax.data.buckets import PaddedBatch

    root = shapes_folder(tmp_path)
    (root / "val/images/0.png").write_bytes(b"")
    source = open_pairs(data("image_masks", root)).test
    tester = PairTestLoader(source, Unreadable(), 1)
    batch = PaddedBatch((36, 40), np.array([0, 1], np.int32), np.ones(2, np.float32))
    found = tester.begin(batch, slice(0, 2)).result()
    assert np.array_equal(found["sizes"], [(32, 32), (32, 40)]) and len(tester.unreadable) == 1
    assert np.all(found["images"][0, :32, :32] == 128) and np.all(found["images"][0, 32:] == 0)
    assert np.array_equal(found["labels"][0, :32, :32], source.labels(0)) and np.all(found["labels"][0, :, 32:] == 255)


@pytest.mark.parametrize(
    ("name", "fields", "message"),
    [
        ("image_masks", {"classes": ("a", "a")}, "different names"),
        ("image_masks", {"classes": ("a,b",)}, r"'a,b' is one class, and masks need two or more: .*\('background','"),
        ("image_masks", {"mask_values": (0, 1)}, "mask_values has 2 values, for 3 classes"),
        ("image_masks", {"mask_values": (0, 1, 70000)}, "different whole numbers"),
        ("image_masks", {"instances": True, "classes": ("a", "b")}, "there is no folder .*instances"),
        ("image_masks", {"eval_split": "test"}, "eval_split=test"),
        ("voc2012", {}, "must be VOCdevkit/VOC2012"),
        ("voc2012", {"classes": ("a", "b")}, "are for image_masks"),
        ("cityscapes", {}, "has no leftImg8bit/train"),
        ("cityscapes", {"sbd": "x"}, "adds masks to voc2012"),
    ],
)
def test_mistakes(tmp_path, name, fields, message):
    root = shapes_folder(tmp_path / "set", 1, 1)
    with pytest.raises(UserError, match=message):
        open_pairs(data(name, root, **fields))


def test_no_image_is_held_out_of_voc(tmp_path):
    voc(tmp_path)
    with pytest.raises(UserError, match="held_out is not for voc2012, .* its validation images alone"):
        open_pairs(data("voc2012", tmp_path, eval_split="held_out", held_out_share=0.5))


def test_a_folder_that_is_not_there(tmp_path):
    with pytest.raises(UserError, match="is no folder"):
        open_pairs(data("image_masks", tmp_path / "nowhere"))
    with pytest.raises(UserError, match="holds val/ but no train/"):
        open_pairs(data("image_masks", shapes_folder(tmp_path / "set", 0, 2), classes=("a", "b", "c")))


def test_masks_of_sixteen_bits_and_of_one(tmp_path):
    values = mask_of([0, 1, 255], dtype=np.uint16)
    assert np.array_equal(read_mask(write(tmp_path / "a.png", values), labels_table(2)), values)
    Image.fromarray(values == 1).save(tmp_path / "b.png")
    assert np.array_equal(read_mask(tmp_path / "b.png", labels_table(2)), values == 1)


def test_what_other_systems_leave_in_a_folder(tmp_path):
    """Folders in capitals, resource forks, and a list of classes from Windows, as in folders of classes."""
    root = shapes_folder(tmp_path)
    for name, capital in (("train", "Train"), ("val", "VAL")):
        (root / name).rename(root / capital)
        (root / capital / "images/._0.png").write_bytes(b"fork")
    (root / "classes.txt").write_bytes(b"\xef\xbb\xbfground\r\nbright\r\ndark\r\n")
    splits = open_pairs(data("image_masks", root))
    assert splits.train.classes == ("ground", "bright", "dark") and splits.remarks == ()
    assert splits.train.names == list("012345") and splits.test.names == list("012")
    assert splits.evaluated_on == "validation"
