"""Views of test images against slices of NumPy, and a resize against Pillow's."""

import numpy as np
import pytest
from PIL import Image

from resnet_jax.data.imagenet.test_crops import shorter_side_shape
from resnet_jax.errors import UserError
from resnet_jax.evaluation.views import pad, resize_shorter_side, ten_crops


def photos(height, width, count=2, seed=0):
    return np.random.default_rng(seed).normal(size=(count, height, width, 3)).astype(np.float32)


@pytest.mark.parametrize(("height", "width", "h", "w"), [(9, 7, 5, 5), (8, 8, 8, 8), (10, 13, 4, 4), (10, 13, 4, 9)])
def test_ten_crops_are_corners_centre_and_mirror_images(height, width, h, w):
    x = photos(height, width)
    top, left = (height - h) // 2, (width - w) // 2
    expected = [
        x[:, :h, :w], x[:, :h, width - w :], x[:, height - h :, :w], x[:, height - h :, width - w :],
        x[:, top : top + h, left : left + w],
    ]  # fmt: skip
    expected += [crop[:, :, ::-1] for crop in expected]
    found = ten_crops(x, (h, w))
    assert len(found) == 10
    for crop, want in zip(found, expected, strict=True):
        np.testing.assert_array_equal(crop, want)


def test_crops_of_the_mirror_image_are_the_mirrored_crops():
    """As a set: Krizhevsky's "horizontal reflections" of five patches."""
    x = photos(8, 8)
    one = {np.asarray(crop).tobytes() for crop in ten_crops(x, (4, 4))}
    other = {np.asarray(crop).tobytes() for crop in ten_crops(x[:, :, ::-1], (4, 4))}
    assert one == other and len(one) == 10


def test_centre_of_the_padded_image_is_the_image():
    x = photos(6, 6)
    np.testing.assert_array_equal(ten_crops(pad(x, 2), (6, 6))[4], x)
    np.testing.assert_array_equal(ten_crops(pad(x, 2), (6, 6))[0][:, 2:, 2:], x[:, :4, :4])
    assert not np.any(ten_crops(pad(x, 2), (6, 6))[0][:, :2])


def test_crops_of_small_images_are_refused():
    with pytest.raises(UserError, match="images of 6x9 pixels have no crop of 7x7"):
        ten_crops(photos(6, 9), (7, 7))


@pytest.mark.parametrize(
    ("shape", "side", "expected"),
    [((500, 375), 256, (341, 256)), ((375, 500), 256, (256, 341)), ((100, 100), 32, (32, 32)), ((1, 9), 4, (4, 36))],
)
def test_the_shorter_side_decides(shape, side, expected):
    assert shorter_side_shape(*shape, side) == expected


@pytest.mark.parametrize(("shape", "side"), [((60, 45), 20), ((45, 60), 33), ((20, 30), 50)])
def test_resize_is_pillows_bilinear_filter(shape, side):
    """Pillow's BILINEAR is a triangle filter as wide as the shrinking: antialiased, within a hundredth of a level."""
    rng = np.random.default_rng(1)
    image = rng.uniform(0, 255, shape).astype(np.float32)
    height, width = shorter_side_shape(*shape, side)
    expected = np.asarray(Image.fromarray(image, "F").resize((width, height), Image.Resampling.BILINEAR))
    found = np.asarray(resize_shorter_side(image[None, ..., None], side))[0, ..., 0]
    np.testing.assert_allclose(found, expected, atol=0.01)


def test_no_resize_at_the_same_size():
    x = photos(8, 12)
    assert resize_shorter_side(x, 8) is x
