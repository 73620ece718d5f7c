"""Normalisation, and random crops and mirror images: every output is one of the candidates, all about as often."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from resnet_jax.data.augment import Augmentation, augmented, normalization, normalize, pad_crop_flip
from resnet_jax.data.colour import colour_basis
from resnet_jax.errors import UserError

KEY = jax.random.key(42)


def photos(count, height=6, width=5, seed=0):
    return np.random.default_rng(seed).normal(size=(count, height, width, 3)).astype(np.float32)


def candidates(image, padding):
    """All crops of the zero-padded image and their mirror images: {(row, column, flipped): crop}."""
    height, width, _ = image.shape
    padded = np.pad(image, ((padding, padding), (padding, padding), (0, 0)))
    crops = {}
    for row in range(2 * padding + 1):
        for column in range(2 * padding + 1):
            crop = padded[row : row + height, column : column + width]
            crops[row, column, False], crops[row, column, True] = crop, crop[:, ::-1]
    return crops


def recover(images, outputs, padding):
    """Where each output was cut, by search; fails unless exactly one candidate is equal to it."""
    found = []
    for image, output in zip(images, np.asarray(outputs), strict=True):
        matches = [where for where, crop in candidates(image, padding).items() if np.array_equal(crop, output)]
        assert len(matches) == 1
        found.append(matches[0])
    return np.array(found)


def assert_uniform(values, kinds):
    """Pearson's chi-square over `kinds` equally likely values, within four deviations of its mean kinds - 1."""
    expected = len(values) / kinds
    assert expected >= 5
    counts = np.bincount(np.asarray(values, int), minlength=kinds)
    assert len(counts) == kinds
    statistic = ((counts - expected) ** 2 / expected).sum()
    assert statistic < kinds - 1 + 4 * np.sqrt(2 * (kinds - 1)), counts


@pytest.fixture(scope="module")
def draws():
    """(row, column, flipped) of 1500 different images, padding 2."""
    images = photos(1500)
    outputs = pad_crop_flip(KEY, images, 2, True)
    assert outputs.shape == images.shape
    return recover(images, outputs, 2)


def test_every_output_is_a_crop_or_its_mirror_image_and_all_are_about_as_likely(draws):
    """25 places times 2, over 1500 images."""
    row, column, flipped = draws.T
    assert_uniform(row, 5)
    assert_uniform(column, 5)
    assert_uniform(flipped, 2)
    assert_uniform((row * 5 + column) * 2 + flipped, 50)


def test_images_are_treated_independently(draws):
    """What one image gets says nothing of the next: all pairs of neighbours are about as likely."""
    row, column, flipped = draws.T
    for values, kinds in ((row, 5), (column, 5), (flipped, 2)):
        assert_uniform(values[:-1] * kinds + values[1:], kinds * kinds)


def test_paper_padding_of_four_pixels():
    """32x32 images, 81 places; the zeros that come in are the mean of normalised images."""
    images = photos(40, 32, 32)
    found = recover(images, pad_crop_flip(KEY, images, 4, True), 4)
    assert len({tuple(where) for where in found}) > 25
    assert found[:, :2].max() == 8
    assert found[:, :2].min() == 0


def test_the_padding_is_zeros():
    """Pixels of one: the sum of an output counts the pixels that came from the image."""
    images = np.ones((64, 8, 8, 1), np.float32)
    outputs = np.asarray(pad_crop_flip(KEY, images, 3, False))
    assert set(np.unique(outputs)) == {0.0, 1.0}
    assert (outputs.sum(axis=(1, 2, 3)) >= 25).all()


def test_no_padding_and_no_flip_is_the_identity():
    images = photos(8)
    np.testing.assert_array_equal(pad_crop_flip(KEY, images, 0, False), images)


def test_crop_without_flip_never_mirrors():
    """Digits must not be mirrored."""
    images = photos(200)
    assert not recover(images, pad_crop_flip(KEY, images, 1, False), 1)[:, 2].any()


def test_flip_without_crop_mirrors_about_half():
    images = photos(400)
    found = recover(images, pad_crop_flip(KEY, images, 0, True), 0)
    assert_uniform(found[:, 2], 2)


def test_same_key_same_result_also_under_jit():
    images = photos(16)
    plain = pad_crop_flip(KEY, images, 2, True)
    jitted = jax.jit(pad_crop_flip, static_argnums=(2, 3))(KEY, images, 2, True)
    np.testing.assert_array_equal(plain, jitted)
    assert not np.array_equal(plain, pad_crop_flip(jax.random.key(43), images, 2, True))


def test_colours_shift_ahead_of_the_padding_and_erasing_comes_last():
    """The zeros around an image stay the mean, whatever its colours; a rectangle may lie on them, too.

    Neither changes the crops and mirror images, nor the random numbers of the other.
    """
    images = np.random.default_rng(3).integers(0, 256, (300, 8, 8, 3)).astype(np.uint8)
    statistics = {"mean": np.full(3, 0.5, np.float32), "std": np.full(3, 0.25, np.float32)}  # 127.5: no pixel is 0

    def batch(**options):
        return np.asarray(augmented(Augmentation(3, True, **options), statistics, images, KEY))

    colours, erasing = {"colour_deviation": 0.1, "colour_basis": colour_basis()}, {"random_erasing": 0.5}
    plain, shifted, erased, both = batch(), batch(**colours), batch(**erasing), batch(**colours, **erasing)
    outside = np.all(plain == 0, axis=-1)
    np.testing.assert_array_equal(plain, pad_crop_flip(KEY, normalize(images, 0.5, 0.25), 3, True))
    shifts = shifted - plain
    assert not shifts[outside].any()
    for shift, around in zip(shifts, outside, strict=True):
        assert np.abs(shift[~around]).max() > 1e-4 and np.ptp(shift[~around], axis=0).max() < 1e-5
    changed = np.any(erased != plain, axis=-1)
    assert np.mean(changed.any(axis=(1, 2))) == pytest.approx(0.5, abs=4 * 0.5 / np.sqrt(300))
    assert (changed & outside).any()
    np.testing.assert_array_equal(both, np.where(changed[..., None], erased, shifted))


@pytest.fixture
def pixels():
    """uint8 images whose channels have means and deviations of their own."""
    rng = np.random.default_rng(1)
    scale = np.array([20, 40, 60])
    return np.clip(rng.normal(size=(50, 4, 3, 3)) * scale + (90, 120, 150), 0, 255).astype(np.uint8)


def test_per_pixel_mean_subtracts_the_mean_image(pixels):
    mean, std = normalization("per_pixel_mean", pixels)
    expected = pixels.astype(np.float64).sum(axis=0) / 50 / 255
    assert mean.dtype == std.dtype == np.float32
    np.testing.assert_allclose(mean, expected, rtol=1e-6)
    np.testing.assert_array_equal(np.broadcast_to(std, (4, 3, 3)), 1)
    np.testing.assert_allclose(normalize(pixels, mean, std), pixels / 255 - expected, atol=1e-6)


def test_per_channel_makes_mean_zero_and_deviation_one(pixels):
    mean, std = normalization("per_channel", pixels)
    flat = pixels.reshape(-1, 3) / 255
    assert mean.dtype == std.dtype == np.float32
    np.testing.assert_allclose(mean, flat.mean(axis=0), rtol=1e-6)
    np.testing.assert_allclose(std, np.sqrt(((flat - flat.mean(axis=0)) ** 2).mean(axis=0)), rtol=1e-6)
    out = np.asarray(normalize(pixels, mean, std), np.float64).reshape(-1, 3)
    np.testing.assert_allclose(out.mean(axis=0), 0, atol=1e-5)
    np.testing.assert_allclose(out.std(axis=0), 1, atol=1e-5)


def test_imagenet_normalisation_has_the_published_numbers(pixels):
    """As the published reference weights expect: RGB in [0, 1]."""
    out = normalize(pixels, *normalization("imagenet", pixels))
    expected = (pixels / 255 - np.array([0.485, 0.456, 0.406])) / np.array([0.229, 0.224, 0.225])
    assert out.dtype == jnp.float32
    np.testing.assert_allclose(out, expected, atol=1e-5)


def test_statistics_of_many_images_do_not_lose_digits():
    """A float32 sum over 50,000 CIFAR images would be off in the third digit."""
    images = np.full((2000, 32, 32, 1), 255, np.uint8)
    images[0] = 0
    mean, std = normalization("per_channel", images)
    np.testing.assert_allclose(mean, 1999 / 2000, rtol=1e-6)
    np.testing.assert_allclose(std, np.sqrt(1999) / 2000, rtol=1e-6)


def test_imagenet_normalisation_of_grey_images_is_a_user_error(pixels):
    with pytest.raises(UserError, match="'imagenet' is for RGB images, not for 1 channel"):
        normalization("imagenet", pixels[..., :1])


def test_unknown_normalisation_is_a_user_error_with_the_nearest(pixels):
    with pytest.raises(UserError, match="unknown normalization 'per_chanel'; did you mean per_channel"):
        normalization("per_chanel", pixels)


def test_per_channel_of_a_constant_channel_is_finite():
    """A grey set stored as RGB with one empty channel must not become NaN."""
    images = np.random.default_rng(0).integers(0, 256, (4, 5, 5, 3), dtype=np.uint8)
    images[..., 1] = 7
    mean, std = normalization("per_channel", images)
    normalised = np.asarray(normalize(jnp.asarray(images), mean, std))
    np.testing.assert_allclose(normalised[..., 1], 0, atol=1e-6)
    assert np.isfinite(normalised).all()
