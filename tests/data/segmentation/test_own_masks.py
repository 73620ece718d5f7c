"""Masks as tools and people write them: what is read all the same, and what is refused or said in plain words."""

import numpy as np
import pytest
from PIL import ExifTags, Image, ImageOps

from resnet_jax.data.segmentation.sources import open_pairs
from resnet_jax.errors import UserError
from tests.data.segmentation.made import shapes_folder, write
from tests.data.segmentation.test_sources import IMAGE, data


def black_and_white(root, ending, mode="L", kind="masks"):
    """Pairs of an image and a mask of two values, with white squares."""
    mask = np.zeros((16, 24), np.uint8)
    mask[4:12, 8:16] = 255
    for part in ("train", "val"):
        write(root / part / "images/x.png", np.zeros((16, 24, 3), np.uint8))
        (root / part / kind).mkdir()
        Image.fromarray(mask).convert(mode).save(root / part / kind / f"x{ending}")
    return mask


@pytest.mark.parametrize("fields", [{"mask_values": (0, 255)}, {"instances": True}, {}])
def test_jpeg_masks_are_refused(tmp_path, fields):
    """Their values near edges are others than those saved: ignored, or a nucleus, without a word."""
    black_and_white(tmp_path, ".jpg", kind="instances" if "instances" in fields else "masks")
    with pytest.raises(UserError, match="is a JPEG, which changes pixel values; save masks as PNG"):
        open_pairs(data("image_masks", tmp_path, classes=("no", "yes"), **fields))


@pytest.mark.parametrize("fields", [{"mask_values": (0, 255)}, {"mask_values": (0, 1)}, {}])
def test_white_of_one_bit(tmp_path, fields):
    mask = black_and_white(tmp_path, ".png", "1")
    splits = open_pairs(data("image_masks", tmp_path, classes=("no", "yes"), **fields))
    assert np.array_equal(splits.train.pair(0)[1], mask > 0) and splits.remarks == ()


def test_masks_of_one_class_are_said(tmp_path):
    black_and_white(tmp_path, ".png")
    splits = open_pairs(data("image_masks", tmp_path, classes=("no", "yes"), mask_values=(0, 1)))
    assert len(splits.remarks) == 2 and "1 masks of" in splits.remarks[0] and "show no alone" in splits.remarks[0]


@pytest.mark.parametrize("part", ["train", "val"])
def test_a_set_without_a_usable_mask_is_refused(tmp_path, part):
    root = shapes_folder(tmp_path)
    for mask in (root / part / "masks").iterdir():
        write(mask, np.zeros((*Image.open(mask).size[::-1], 3), np.uint8))
    with pytest.raises(UserError, match=f"in .*/{part}/masks; 0: mask .* is of colours"):
        open_pairs(data("image_masks", root))


def test_why_no_pair_is_left(tmp_path):
    root = shapes_folder(tmp_path, 2, 1)
    for name in "01":
        (root / f"train/masks/{name}.png").rename(root / f"train/masks/{name}_mask.png")
    with pytest.raises(UserError, match="no image with a mask; .*have no mask and are left out: 0, 1; .* 0_mask"):
        open_pairs(data("image_masks", root))


def test_a_part_without_masks_is_left_out(tmp_path):
    """Images whose masks are kept from us: val is evaluated on. Without val nothing is."""
    root = shapes_folder(tmp_path)
    write(root / "test/images/9.png", IMAGE)
    splits = open_pairs(data("image_masks", root))
    assert splits.evaluated_on == "validation" and splits.remarks == (f"{root}/test has no masks/ and is left out",)
    (root / "val").rename(root / "other")
    with pytest.raises(UserError, match="training images alone; .*held_out_share.*/test has no masks/"):
        open_pairs(data("image_masks", root))


def test_folders_too_deep_are_said(tmp_path):
    root = shapes_folder(tmp_path)
    for kind in ("images", "masks"):
        write(root / f"train/{kind}/deep/9.png", IMAGE)
    remarks = open_pairs(data("image_masks", root)).remarks
    assert remarks == tuple(
        f"folders in {root}/train/{kind} lie too deep and are left out: deep" for kind in ("images", "masks")
    )


def test_numbers_of_classes_in_their_file(tmp_path):
    root = shapes_folder(tmp_path)
    (root / "classes.txt").write_text("2 dark\n0 ground\n1 bright\n")
    assert open_pairs(data("image_masks", root)).train.classes == ("ground", "bright", "dark")
    (root / "classes.txt").write_text("ground, or sky\nbright\ndark\n")
    assert open_pairs(data("image_masks", root)).train.classes == ("ground, or sky", "bright", "dark")


@pytest.mark.parametrize(
    "text", ["name\nground\nbright\ndark\n", "label,name\n0,ground\n2,dark\n1,bright\n",
             "\nid;Class\n1;ground\n2;bright\n3;dark\n"]
)  # fmt: skip
def test_the_heading_of_their_file_is_no_class(tmp_path, text):
    """It would be the class of the pixels of 0, and every other name that of the next number."""
    root = shapes_folder(tmp_path)
    (root / "classes.txt").write_text(text)
    assert open_pairs(data("image_masks", root)).train.classes == ("ground", "bright", "dark")
    (root / "classes.txt").write_text("ground\n1 bright\n2 dark\n")
    with pytest.raises(UserError, match="has other labels than 0 to 2 or 1 to 3"):
        open_pairs(data("image_masks", root))


@pytest.mark.parametrize("turn", [5, 6, 7, 8])
def test_a_mask_is_turned_with_its_photograph(tmp_path, turn):
    """One of the size of the stored rows; one of the upright size stays. Pillow turns the expected one."""
    labels = np.zeros((16, 24), np.uint8)
    labels[2:9, 3:20] = 1
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = turn
    stored = Image.fromarray(labels)
    stored.save(tmp_path / "turned.png", exif=exif)
    upright = np.asarray(ImageOps.exif_transpose(Image.open(tmp_path / "turned.png")))
    for part, mask in (("train", labels), ("val", upright)):
        write(tmp_path / part / "masks/x.png", mask)
        (tmp_path / part / "images").mkdir()
        Image.fromarray(labels * 255).convert("RGB").save(tmp_path / part / "images/x.jpg", exif=exif)
    splits = open_pairs(data("image_masks", tmp_path, classes=("no", "yes")))
    for source in (splits.train, splits.test):
        pixels, found = source.pair(0)
        assert np.array_equal(found, upright) and np.mean((pixels[..., 0] > 128) == upright) > 0.95
