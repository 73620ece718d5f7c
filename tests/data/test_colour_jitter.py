"""Photometric distortion against fb.resnet.torch's, written in NumPy one operation after another."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from resnet_jax.config import base_config
from resnet_jax.data.augment import augmented, normalize, pad_crop_flip
from resnet_jax.data.colour import colour_jitter, draw, jitter_colours
from resnet_jax.data.resident import make_resident
from resnet_jax.data.sources import load_dataset
from resnet_jax.training.distributed import make_mesh
from resnet_jax.training.trainer import make_trainer
from tests.data.imagenet.conftest import tiny_folder  # noqa: F401

# Columns of the factors.
BRIGHTNESS, CONTRAST, SATURATION = range(3)
ORDERS = list(itertools.permutations((BRIGHTNESS, CONTRAST, SATURATION)))


def grey_of(image):
    return np.repeat((0.299 * image[..., 0] + 0.587 * image[..., 1] + 0.114 * image[..., 2])[..., None], 3, axis=-1)


def operate(image, operation, alpha):
    """datasets/transforms.lua: `blend(input, other, alpha)`, of a float64 image (height, width, 3)."""
    if operation == BRIGHTNESS:
        other = np.zeros_like(image)
    elif operation == CONTRAST:
        other = np.full_like(image, grey_of(image).mean())
    else:
        other = grey_of(image)
    return alpha * image + (1 - alpha) * other


def distorted(image, order, alphas):
    image = np.float64(image)
    for operation in order:
        image = operate(image, operation, np.float64(alphas[operation]))
    return image


def by_hand(images, key):
    """What a strength of 0.4 makes of images in [0, 1], float64; each in another order."""
    alphas = np.asarray(draw(key, len(images), 0.4))
    drawn = zip(images, itertools.cycle(ORDERS), alphas)  # noqa: B905
    return np.stack([distorted(*one) for one in drawn])


def photos(count, seed=0, size=5):
    """RGB in [0, 1], with black and white pixels in each, each of a tint of its own."""
    rng = np.random.default_rng(seed)
    images = rng.uniform(size=(count, size, size + 1, 3)) ** rng.uniform(0.3, 3, (count, 1, 1, 3))
    images[:, 0, 0], images[:, 0, 1] = 0, 1
    return images.astype(np.float32)


@pytest.mark.parametrize("order", ORDERS)
def test_one_pass_is_the_operations_one_after_another_in_every_order(order):
    """So that drawing an order, as fb.resnet.torch does, would change nothing."""
    images = photos(40)
    alphas = np.random.default_rng(1).uniform(0.0, 2.0, (40, 3)).astype(np.float32)
    found = np.asarray(jax.jit(jitter_colours)(images, alphas))
    expected = np.stack([distorted(image, order, a) for image, a in zip(images, alphas, strict=True)])
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, expected, atol=3e-6)
    # Nothing is clipped, at either end.
    assert found.max() > 1.5 and found.min() < -0.1


def test_each_operation_by_itself():
    (image,), one = photos(1), np.ones((3, 3), np.float32)
    alphas = one + np.diag([1.0, -1.0, -1.0]).astype(np.float32)
    brighter, flat, colourless = np.asarray(jitter_colours(np.stack([image] * 3), alphas))
    np.testing.assert_allclose(brighter, 2 * image, rtol=1e-6)
    np.testing.assert_allclose(flat, grey_of(image).mean(), atol=1e-6)
    np.testing.assert_allclose(colourless, grey_of(image), atol=1e-6)
    np.testing.assert_array_equal(jitter_colours(np.stack([image] * 3), one), np.stack([image] * 3))


@pytest.mark.parametrize("strength", [0.4, 1.0])
def test_factors_are_uniform_in_their_range_and_independent(strength):
    count = 60_000
    alphas = np.asarray(draw(jax.random.key(0), count, strength))
    for i in range(3):
        assert stats.kstest(alphas[:, i], stats.uniform(1 - strength, 2 * strength).cdf).pvalue > 1e-3
    assert alphas.min() >= np.float32(1 - strength) and alphas.max() <= np.float32(1 + strength)
    neighbours = np.concatenate([alphas[1:], alphas[:-1]], axis=1)  # of the image, and of the next
    assert np.abs(np.corrcoef(neighbours.T) - np.eye(6)).max() < 5 / np.sqrt(count)


def test_a_batch_is_what_was_drawn_for_each_image():
    """The same with the same key only; equal images become different ones."""
    key, images = jax.random.key(3), np.repeat(photos(1), 12, axis=0)
    jitter = jax.jit(colour_jitter, static_argnums=2)
    found = np.asarray(jitter(key, images, 0.4))
    np.testing.assert_allclose(found, by_hand(images, key), atol=3e-6)
    np.testing.assert_array_equal(jitter(key, images, 0.4), found)
    assert np.abs(np.asarray(jitter(jax.random.key(4), images, 0.4)) - found).max() > 0.01
    for one, other in itertools.combinations(found, 2):
        assert np.abs(one - other).max() > 1e-3


def pipelines(*strengths, **fields):
    dataset, mesh = load_dataset("synthetic"), make_mesh(jax.devices()[:1])
    config = base_config()
    config.batch_size = 32
    config.data.update({"normalization": "per_channel", "padding": 2, "flip": True} | fields)

    def pipeline(strength):
        config.data.colour_jitter = strength
        return make_resident(dataset, config, mesh)

    return dataset, [pipeline(strength) for strength in strengths]


def batch_of(pipeline, images, key):
    return np.asarray(augmented(pipeline.augmentation, pipeline.train, images, key))


def test_it_comes_ahead_of_the_rest_and_changes_no_other_random_numbers():
    """Training images are those of the same step without it on pixels that NumPy has distorted."""
    options = {"colour_pca": 0.1, "random_erasing": 0.5}
    dataset, (plain, changed) = pipelines(0.0, 0.4, **options)
    key, images = jax.random.key(5), dataset.train.images[:32]
    pixels = 255 * by_hand(images / 255, jax.random.fold_in(key, 5))
    expected = batch_of(plain, jnp.asarray(pixels, jnp.float32), key)
    found = batch_of(changed, images, key)
    np.testing.assert_allclose(found, expected, atol=3e-5)
    assert np.abs(found - batch_of(plain, images, key)).max() > 0.1
    np.testing.assert_array_equal(changed.eval_batch(changed.test, np.arange(4))[0],
                                  plain.eval_batch(plain.test, np.arange(4))[0])  # fmt: skip


def test_0_leaves_the_bits_of_a_batch(monkeypatch):
    """The compiled program, too, is that of a step without it, and another when it is on."""
    dataset, (off, on) = pipelines(0.0, 0.4)
    key, images = jax.random.key(7), dataset.train.images[:32]

    def program(pipeline):
        return jax.jit(lambda x, k: augmented(pipeline.augmentation, pipeline.train, x, k)).lower(images, key).as_text()

    statistics = off.train
    expected = pad_crop_flip(key, normalize(images, statistics["mean"], statistics["std"]), 2, True)
    np.testing.assert_array_equal(batch_of(off, images, key), expected)
    before = program(off)
    assert program(on) != before
    monkeypatch.setattr("resnet_jax.data.augment.colour_jitter", None)  # an error where it is called
    assert program(off) == before


def test_photographs_that_are_read_from_files(tiny_config, tiny_folder):  # noqa: F811
    """By the config, on the way that ImageNet takes."""
    fields = {"data__name": "image_folder", "data__data_dir": str(tiny_folder), "data__workers": 2,
              "data__image_size": 32, "data__shorter_side": (36, 40), "data__eval_shorter_side": 36,
              "data__normalization": "imagenet", "data__padding": 0, "data__flip": False, "batch_size": 8}  # fmt: skip
    pipeline = make_trainer(tiny_config(**fields, data__colour_jitter=0.4), jax.devices()[:1]).pipeline
    inputs = jax.tree.map(lambda x: np.asarray(x)[0], pipeline.train_inputs(0, 1))
    key = jax.random.key(9)
    found, _ = pipeline.train_batch(pipeline.train, inputs, key)
    pixels = by_hand(inputs["images"] / 255, jax.random.fold_in(key, 5))
    expected = (pixels - np.array([0.485, 0.456, 0.406])) / np.array([0.229, 0.224, 0.225])
    np.testing.assert_allclose(found, expected, atol=3e-5)
