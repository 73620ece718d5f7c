"""Image and mask move together, whatever the factor, the place and the mirror: places are written into both."""

import numpy as np
import pytest

from resnet_jax.data.segmentation.loaders import crop_pair
from tests.data.segmentation.made import coordinates

HEIGHT, WIDTH, SIZE = 40, 56, 32
FILL = (1, 2, 3)
IMAGE = coordinates(HEIGHT, WIDTH)
LABELS = (np.arange(HEIGHT)[:, None] // 8 * 7 + np.arange(WIDTH) // 8).astype(np.uint8)  # 35 tiles of 8x8


def cropped(draws, size=SIZE, scale=(0.5, 2.0), scale_from=0, flip=True):
    return crop_pair(IMAGE, LABELS, np.array(draws), size, scale, scale_from, flip, FILL)


@pytest.mark.parametrize("seed", range(30))
def test_image_and_mask_move_together(seed):
    draws = np.random.default_rng(seed).random(4)
    image, labels = cropped(draws)
    assert image.shape == (SIZE, SIZE, 3) and labels.shape == (SIZE, SIZE)
    inside = labels != 255
    column, row = (image[..., k].astype(float) / 4 for k in (0, 1))
    # Where the image says that a pixel is well inside of a tile, the mask has that tile.
    for place in zip(*np.nonzero(inside), strict=True):
        across, down = column[place] % 8, row[place] % 8
        if 0.6 < across < 6.4 and 0.6 < down < 6.4 and image[place][2] > 120:
            assert labels[place] == int(row[place] // 8) * 7 + int(column[place] // 8), (place, row[place])
    assert np.all(image[~inside & np.roll(~inside, -1, 0) & np.roll(~inside, -1, 1)][1:, 2] < 128)


def test_at_its_own_size_a_crop_is_a_part_of_the_image():
    for mirrored, draw in ((False, 0.9), (True, 0.1)):
        image, labels = cropped((0.5, 0.99, 0.5, draw), scale=(1.0, 1.0))
        top, left = HEIGHT - SIZE, (WIDTH - SIZE + 1) // 2
        expected = IMAGE[top:, left : left + SIZE], LABELS[top:, left : left + SIZE]
        assert np.array_equal(image, expected[0][:, ::-1] if mirrored else expected[0])
        assert np.array_equal(labels, expected[1][:, ::-1] if mirrored else expected[1])


def test_half_and_double_size():
    image, labels = cropped((0.0, 0, 0, 0.9))  # 20 rows of 28 pixels
    assert np.array_equal(labels != 255, (np.arange(SIZE) < 20)[:, None] & (np.arange(SIZE) < 28))
    # A pixel at half the size is the mean of four.
    means = IMAGE.reshape(20, 2, 28, 2, 3).mean(axis=(1, 3))
    assert np.abs(image[:20, :28] - means).max() <= 1
    assert np.all(image[21:] == FILL) and np.all(image[:, 29:] == FILL)
    image, labels = cropped((1.0, 0, 0, 0.9))
    assert np.array_equal(labels, LABELS[:16, :16].repeat(2, axis=0).repeat(2, axis=1))


def test_the_factor_is_of_the_shorter_side_that_is_asked_for():
    _, labels = cropped((0, 0, 0, 0.9), size=100, scale=(1.0, 1.0), scale_from=60)
    assert (labels != 255).sum() == 60 * 84


def test_without_flip_nothing_is_mirrored():
    assert np.array_equal(cropped((0.5, 0.5, 0.5, 0.1), flip=False)[1], cropped((0.5, 0.5, 0.5, 0.9))[1])
