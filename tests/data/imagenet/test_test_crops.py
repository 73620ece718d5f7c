"""What is cut from test images against Pillow and slices."""

import numpy as np
import pytest
from PIL import Image

from resnet_jax.data.imagenet.loaders import TestLoader, Unreadable
from resnet_jax.data.imagenet.test_crops import Crops, WholeImage
from resnet_jax.data.streaming import open_splits
from tests.data.imagenet.conftest import WNIDS, fill, picture


def noise(height, width):
    return np.random.default_rng(height).integers(0, 256, (height, width, 3), np.uint8)


def bilinear(pixels, height, width):
    return np.asarray(Image.fromarray(pixels).resize((width, height), Image.Resampling.BILINEAR))


@pytest.mark.parametrize(("shape", "resized"), [((90, 121), (32, 43)), ((121, 90), (43, 32)), ((20, 20), (32, 32))])
def test_crops(shape, resized):
    pixels = noise(*shape)
    found = Crops(24, 32, corners=True).views(pixels, (1, 1))
    whole, (rest_y, rest_x) = bilinear(pixels, *resized), np.subtract(resized, 24)
    corners = [(0, 0), (0, rest_x), (rest_y, 0), (rest_y, rest_x), (rest_y // 2, rest_x // 2)]
    assert len(found) == 5
    for view, (y, x) in zip(found, corners, strict=True):
        np.testing.assert_array_equal(view, whole[y : y + 24, x : x + 24])
    np.testing.assert_array_equal(Crops(24, 32).views(pixels, (1, 1))[0], found[4])


@pytest.mark.parametrize(
    ("shape", "group", "sizes"),
    [
        ((300, 400), (12, 16), [(224, 298), (640, 853)]),  # 4:3, 3:2, 5:4 and 1:1 as they are, rounded down
        ((600, 400), (18, 12), [(336, 224), (960, 640)]),
        ((80, 100), (12, 15), [(224, 280), (640, 800)]),
        ((50, 50), (12, 12), [(224, 224), (640, 640)]),
        ((100, 130), (12, 16), [(224, 298), (640, 853)]),  # 15.6 twelfths
        ((10, 1000), (12, 36), [(224, 672), (640, 1920)]),
    ],
)
def test_whole_images_have_one_of_49_proportions(shape, group, sizes):
    whole = WholeImage((224, 640))
    assert whole.group(*shape) == group
    assert list(whole.shapes(group)) == sizes
    pixels = noise(*shape)
    if max(shape) > 3 * min(shape):
        pixels = pixels[:, 485:515]  # the middle
    for view, size in zip(whole.views(noise(*shape), group), sizes, strict=True):
        np.testing.assert_array_equal(view, bilinear(pixels, *size))


def test_there_are_49():
    sides = (1, 2, 3, 5, 8, 12, 50, 99, 100, 101, 117, 125, 150, 177, 200, 251, 300, 1000)
    every = [(a, b) for a in range(100, 400) for b in (100, a, 400)] + [(a, b) for a in sides for b in sides]
    groups = {WholeImage((224,)).group(*size) for one in every for size in (one, one[::-1])}
    assert len(groups) == 49
    # No image is stretched by more than a twenty-fourth.
    for height, width in ((100, a) for a in range(100, 300)):
        parts = WholeImage((224,)).group(height, width)
        assert abs(parts[1] / parts[0] - width / height) <= 1 / 24 + 1e-9


@pytest.mark.parametrize("shape", [(1, 1), (1, 2000), (2000, 1), (3, 7)])
@pytest.mark.parametrize("cut", [Crops(24, 32), Crops(24, 32, corners=True), WholeImage((16, 40))])
def test_images_of_a_pixel(shape, cut):
    group = cut.group(*shape)
    views = cut.views(np.full((*shape, 3), 7, np.uint8), group)
    assert [view.shape[:2] for view in views] == list(cut.shapes(group))
    assert all((view == 7).all() for view in views)


def test_every_image_is_shown_in_any_state(tiny_folder):
    """Damaged ones are grey, are told once, and keep their label."""
    bad = {f"val/{WNIDS[1]}/a.JPEG": b"", f"val/{WNIDS[1]}/b.JPEG": picture(3)[:200], f"val/{WNIDS[2]}/c.JPEG": b"no"}
    source = open_splits("image_folder", str(fill(tiny_folder, bad)))[1]
    unreadable = Unreadable()
    loader = TestLoader(source, views=Crops(16, 18), unreadable=unreadable, workers=2)
    (images,), labels, grey = loader.begin(np.arange(9)).result()
    assert images.shape == (9, 16, 16, 3) and labels.tolist() == [0, 0, 1, 1, 1, 1, 2, 2, 2]
    assert grey.tolist() == [False, False, True, True, False, False, True, False, False]
    assert (images[grey] == 128).all() and images[~grey].std() > 10
    loader.begin(np.arange(9)).result()
    assert len(unreadable) == 3 and len(unreadable.new_warnings()) == 3
    assert unreadable.first("test").partition("cannot be read: ")[2] and "another" in unreadable.first("training")
    groups = loader.groups(range(9), WholeImage((16,)))
    assert groups.tolist() == [[12, 12] if g in (2, 6) else [12, 16] for g in range(9)]  # b's header is whole


def test_jpegs_are_decoded_whole_and_resized_as_pillow_does(tmp_path, sample):
    """Centre crops small enough for training to decode at an eighth; decoders differ by up to 2 of 255."""
    paths = sorted(sample.glob("val/*/*"))[:8]
    names = {f"{split}/{WNIDS[0]}/{path.name}": path.read_bytes() for path in paths for split in ("train", "val")}
    names[f"train/{WNIDS[1]}/other.JPEG"] = paths[0].read_bytes()  # one class alone is no set
    source = open_splits("image_folder", str(fill(tmp_path, names))).test
    (images,), _, _ = TestLoader(source, views=Crops(32, 36), unreadable=Unreadable()).begin(np.arange(8)).result()
    for image, path in zip(images, paths, strict=True):
        whole = np.asarray(Image.open(path).convert("RGB"))
        height, width = whole.shape[:2]
        if height <= width:
            whole = bilinear(whole, 36, width * 36 // height)
        else:
            whole = bilinear(whole, height * 36 // width, 36)
        y, x = (whole.shape[0] - 32) // 2, (whole.shape[1] - 32) // 2
        assert abs(image.astype(int) - whole[y : y + 32, x : x + 32]).max() <= 2


def test_many_unreadable_images_are_told_in_few_lines():
    unreadable = Unreadable()
    for number in range(1030):
        unreadable.add("test", f"{number}.jpg", ValueError("an empty file"))
    told = unreadable.new_warnings()
    assert len(unreadable) == 1030 and unreadable.new_warnings() == []
    assert told[0] == "test image 0.jpg cannot be read: an empty file" == unreadable.first("test")
    assert told[20:] == ["1,010 further images cannot be read"]
