"""Random erasing against its algorithm in NumPy (Zhong et al. 2020)."""

import jax
import numpy as np
import pytest

from resnet_jax.data.erasing import random_erasing, random_rectangles

COUNT, SIDE = 3000, 32


def reference(count, height, width, seed=0):
    """Algorithm 1, a rectangle at a time: (height, width) of each."""
    rng, found = np.random.default_rng(seed), []
    while len(found) < count:
        area, aspect = rng.uniform(0.02, 0.4) * height * width, rng.uniform(0.3, 1 / 0.3)
        h, w = round(np.sqrt(area * aspect)), round(np.sqrt(area / aspect))
        if h < height and w < width:
            found.append((h, w))
    return np.array(found).T


@pytest.mark.parametrize(("height", "width"), [(32, 32), (20, 40)])
def test_rectangles_are_those_of_the_algorithm(height, width):
    """Inside the image; sides and areas distributed as there, by the largest gap of their distributions."""
    top, left, h, w = (np.asarray(x) for x in random_rectangles(jax.random.key(0), COUNT, height, width))
    assert top.min() >= 0 and left.min() >= 0 and (top + h).max() <= height and (left + w).max() <= width
    other_h, other_w = reference(COUNT, height, width)
    for ours, theirs in ((h, other_h), (w, other_w), (h * w, other_h * other_w)):
        values = np.union1d(ours, theirs)
        gap = np.abs([np.mean(ours <= v) - np.mean(theirs <= v) for v in values]).max()
        assert gap < 1.95 * np.sqrt(2 / COUNT)  # Kolmogorov and Smirnov, one in a thousand
    # The place is uniform among all that there are: its mean is in the middle.
    assert np.mean(top / (height - h)) == pytest.approx(0.5, abs=0.03)
    assert np.mean(left / (width - w)) == pytest.approx(0.5, abs=0.03)


def test_one_rectangle_of_random_pixels_in_a_share_of_the_images():
    images = np.full((COUNT, SIDE, SIDE, 3), 9, np.float32)  # a value that no random pixel has
    mean, std = np.array([0.4, 0.5, 0.6], np.float32), np.array([0.2, 0.25, 0.3], np.float32)
    found = np.asarray(random_erasing(jax.random.key(1), images, 0.3, mean, std))
    erased = np.any(found != 9, axis=-1)
    hit = erased.any(axis=(1, 2))
    assert np.mean(hit) == pytest.approx(0.3, abs=4 * np.sqrt(0.3 * 0.7 / COUNT))
    for mask in erased[hit][:50]:
        rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
        assert mask[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1].all()
        assert mask.sum() == len(rows) * len(columns)
    pixels = found[erased] * std + mean
    assert pixels.min() >= -1e-6 and pixels.max() <= 1 + 1e-6
    np.testing.assert_allclose(pixels.mean(axis=0), 0.5, atol=0.01)
    np.testing.assert_allclose(pixels.var(axis=0), 1 / 12, atol=0.005)
    # Each is drawn for itself: neither one colour for a rectangle, nor one noise for all images, nor grey.
    assert len(np.unique(pixels, axis=0)) == len(pixels)
    assert np.abs(np.corrcoef(pixels.T) - np.eye(3)).max() < 0.02


def test_an_image_of_one_pixel_stays():
    image = np.full((4, 1, 1, 3), 9, np.float32)
    np.testing.assert_array_equal(random_erasing(jax.random.key(0), image, 1.0, np.zeros(3), np.ones(3)), image)
