"""RandAugment: each operation against Pillow's, which the published implementations are made of, and the draws."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image, ImageEnhance, ImageOps
from scipy import stats

from resnet_jax.config import base_config
from resnet_jax.data.augment import augmented
from resnet_jax.data.rand_augment import (
    OPERATIONS,
    VARIANTS,
    RandAugment,
    apply_operation,
    draw,
    rand_augment,
    take_packed_pixels,
    take_pixels,
)
from resnet_jax.data.resident import make_resident
from resnet_jax.data.sources import load_dataset
from resnet_jax.training.distributed import make_mesh

GREY = (128, 128, 128)
operate = jax.jit(apply_operation, static_argnames="variant")


def photo(height=41, width=50, seed=0, channels=3):
    """Smooth but for some noise, with a range of its own in each channel, so that stretching it is not the identity."""
    rng = np.random.default_rng(seed)
    small = Image.fromarray(rng.integers(0, 256, (6, 7, 3), dtype=np.uint8))
    pixels = np.asarray(small.resize((width, height), Image.Resampling.BICUBIC), np.float64)
    pixels += rng.uniform(-12, 12, pixels.shape)
    return (pixels.clip(0, 255) * (0.8, 0.6, 0.7) + (10, 30, 20)).astype(np.uint8)[..., :channels]


def affine(image, *matrix):
    fill = GREY[: len(image.getbands())]
    return image.transform(image.size, Image.Transform.AFFINE, matrix, Image.Resampling.BILINEAR, fillcolor=fill)


def pillow(name, image, level, sign, variant="paper"):
    """The paper's ranges (its section 3; AutoAugment's table 6), the end of each at level 1."""
    width, height = image.size
    factor, signed = 1 + sign * 0.9 * level, level * sign
    bits = (8 if variant == "paper" else 4) - int(4 * level)
    bands = len(image.getbands())
    add = [min(255, v + int(110 * level)) if v < 128 else v for v in range(256)] * bands
    ways = {
        "identity": lambda: image,
        "auto_contrast": lambda: ImageOps.autocontrast(image),
        "equalize": lambda: ImageOps.equalize(image),
        "rotate": lambda: image.rotate(30 * signed, Image.Resampling.BILINEAR, fillcolor=GREY[:bands]),
        "solarize": lambda: ImageOps.solarize(image, 256 - int(256 * level)),
        # As ImageOps.posterize, which since Pillow 13 refuses to keep none.
        "posterize": lambda: image.point([v & ~(2 ** (8 - bits) - 1) for v in range(256)] * bands),
        "color": lambda: ImageEnhance.Color(image).enhance(factor),
        "contrast": lambda: ImageEnhance.Contrast(image).enhance(factor),
        "brightness": lambda: ImageEnhance.Brightness(image).enhance(factor),
        "sharpness": lambda: ImageEnhance.Sharpness(image).enhance(factor),
        "shear_x": lambda: affine(image, 1, 0.3 * signed, 0, 0, 1, 0),
        "shear_y": lambda: affine(image, 1, 0, 0, 0.3 * signed, 1, 0),
        "translate_x": lambda: affine(image, 1, 0, 0.45 * signed * width, 0, 1, 0),
        "translate_y": lambda: affine(image, 1, 0, 0, 0, 1, 0.45 * signed * height),
        "invert": lambda: ImageOps.invert(image),
        "solarize_add": lambda: image.point(add),
    }
    return np.asarray(ways[name](), np.int32)


def assert_as_pillow(name, pixels, level, sign, variant="paper"):
    """Within a grey level, and that in no more than 2 % of the pixels."""
    image = Image.fromarray(pixels if pixels.shape[-1] == 3 else pixels[..., 0])
    expected = pillow(name, image, level, sign, variant).reshape(pixels.shape)
    found = np.asarray(operate(pixels, OPERATIONS.index(name), level, sign, variant=variant), np.int32)
    difference = np.abs(found - expected)
    assert difference.max() <= 1 and np.mean(difference > 0) < 0.02, (name, level, sign)
    return expected


def test_the_papers_fourteen_operations():
    assert len(VARIANTS["paper"]) == 14 and len(VARIANTS["timm"]) == 15
    assert OPERATIONS[0] == "identity"  # what is not carried out


@pytest.mark.parametrize("name", OPERATIONS)
def test_each_operation_is_pillows(name):
    pixels, changed = photo(), []
    for level in (0.0, 0.13, 0.3, 0.7, 0.95, 1.0):
        for sign in (1.0, -1.0):
            expected = assert_as_pillow(name, pixels, level, sign)
            changed.append(np.mean(np.abs(expected - pixels)))
    assert name == "identity" or max(changed) > 2


@pytest.mark.parametrize("name", OPERATIONS)
def test_grey_images(name):
    assert_as_pillow(name, photo(channels=1), 0.7, -1.0)


def test_images_of_few_values():
    """One value, two, all of them: where histograms have no width, and where steps are small."""
    one = np.full((41, 50, 3), 77, np.uint8)
    two = np.where(np.arange(41 * 50).reshape(41, 50, 1) % 3 == 0, 0, 255).astype(np.uint8).repeat(3, -1)
    noise = np.random.default_rng(0).integers(0, 256, (41, 50, 3), dtype=np.uint8)
    for pixels in (one, two, noise):
        for name in ("auto_contrast", "equalize", "contrast", "sharpness", "color"):
            assert_as_pillow(name, pixels, 0.7, 1.0)


def test_timms_posterize_keeps_fewer_bits():
    for level in (0.0, 0.6, 0.7, 1.0):
        assert_as_pillow("posterize", photo(), level, 1.0, "timm")


def levels_of(magnitude, deviation=0.0, **fields):
    return draw(jax.random.key(1), 4000, RandAugment(2, magnitude, deviation, **fields))


@pytest.mark.parametrize("variant", VARIANTS)
def test_operations_are_drawn_alike_and_independently(variant):
    """Chi-square over the operations, and over the pairs of the first and the second."""
    numbers, levels, signs = (np.asarray(x) for x in levels_of(9.0, variant=variant))
    assert numbers.shape == levels.shape == signs.shape == (4000, 2)
    names = VARIANTS[variant]
    order = np.array([names.index(OPERATIONS[n]) for n in numbers.reshape(-1)]).reshape(-1, 2)
    counts = np.bincount(order.reshape(-1), minlength=len(names))
    assert stats.chisquare(counts).pvalue > 1e-3
    pairs = np.bincount(order[:, 0] * len(names) + order[:, 1], minlength=len(names) ** 2)
    assert stats.chisquare(pairs).pvalue > 1e-3
    np.testing.assert_allclose(levels, 0.9, rtol=1e-6)
    assert np.mean(signs == 1) == pytest.approx(0.5, abs=4 * np.sqrt(0.25 / 8000))
    assert set(np.unique(signs)) == {-1.0, 1.0}


def test_magnitudes_are_normal_within_the_range():
    """timm's rand-m7-mstd0.5: 7 of 10, deviation 0.5; near the end of the range what is above is the end."""
    _, levels, _ = levels_of(7.0, 0.5)
    assert stats.kstest(np.asarray(levels).reshape(-1) * 10, stats.norm(7, 0.5).cdf).pvalue > 1e-3
    _, levels, _ = levels_of(10.0, 0.5)
    assert np.max(levels) == 1 and np.mean(np.asarray(levels) == 1) == pytest.approx(0.5, abs=0.03)


def test_probability_leaves_operations_out():
    numbers, _, _ = levels_of(9.0, probability=0.3, variant="timm")  # which has no identity of its own
    assert np.mean(np.asarray(numbers) == 0) == pytest.approx(0.7, abs=4 * np.sqrt(0.21 / 8000))


def test_a_batch_is_its_images_changed_one_after_another():
    images = jnp.stack([photo(seed=i) for i in range(6)])
    how, key = RandAugment(2, 9.0, 0.5, 0.8, "timm"), jax.random.key(3)
    found = jax.jit(lambda images: rand_augment(key, images, how))(images)
    assert found.dtype == jnp.uint8
    numbers, levels, signs = (np.asarray(x) for x in draw(key, 6, how))
    for i, image in enumerate(images):
        for n in range(2):
            image = operate(image, numbers[i, n], levels[i, n], signs[i, n], variant="timm")
        assert np.abs(np.asarray(image, np.int32) - np.asarray(found[i], np.int32)).max() <= 1
    assert np.any(numbers[:, 0] != numbers[0, 0])


def test_it_comes_ahead_of_the_rest_and_changes_no_other_random_numbers():
    """Images in training are those of the same step without it, where both operations are the identity."""
    dataset, mesh = load_dataset("synthetic"), make_mesh(jax.devices()[:1])
    config, how = base_config(), RandAugment(2, 9.0)
    config.data.update({"normalization": "per_channel", "padding": 2, "flip": True})
    plain = make_resident(dataset, config, mesh)
    config.data.rand_augment.update(dataclasses.asdict(how))
    changed = make_resident(dataset, config, mesh)
    key, images = jax.random.key(5), dataset.train.images[:64]
    without, found = (np.asarray(augmented(p.augmentation, p.train, images, key)) for p in (plain, changed))
    idle = np.all(np.asarray(draw(jax.random.fold_in(key, 4), 64, how)[0]) == 0, axis=1)
    same = np.array([np.allclose(a, b, atol=1e-6) for a, b in zip(without, found, strict=True)])
    assert np.all(same[idle]) and np.mean(same) < 0.3
    np.testing.assert_array_equal(changed.eval_batch(changed.test, np.arange(4))[0],
                                  plain.eval_batch(plain.test, np.arange(4))[0])  # fmt: skip


@pytest.mark.parametrize("channels", [1, 3])
def test_packed_pixels_are_the_pixels(channels):
    """What accelerators compute, and CPUs do not."""
    draw = np.random.default_rng(0)
    image = draw.integers(0, 256, (7, 9, channels), dtype=np.uint8)
    places = draw.integers(0, 7 * 9, (5, 4))
    for take in (take_pixels, take_packed_pixels):
        np.testing.assert_array_equal(take(jnp.asarray(image), jnp.asarray(places)), image[places // 9, places % 9])
