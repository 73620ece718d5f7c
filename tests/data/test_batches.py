"""Batches are made from shapes alone: a step can be compiled without data or arrays."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from resnet_jax.config import base_config
from resnet_jax.data.augment import Augmentation
from resnet_jax.data.pipeline import make_pipeline
from resnet_jax.data.resident import ResidentBatches, make_resident
from resnet_jax.data.sampling import batch_indices
from resnet_jax.data.sources import load_dataset
from resnet_jax.data.streaming import StreamingBatches
from resnet_jax.training.distributed import make_mesh
from tests.data.detection import made as boxes
from tests.data.imagenet.conftest import tiny_folder  # noqa: F401
from tests.data.segmentation.made import shapes_folder

KEY = jax.eval_shape(lambda: jax.random.key(0))


def config_with_everything():
    config = base_config()
    config.batch_size = 8
    config.data.update({"normalization": "per_pixel_mean", "padding": 2, "flip": True, "colour_pca": 0.1})
    config.data.update({"colour_jitter": 0.4, "random_erasing": 0.5})
    config.data.rand_augment.operations = 1
    return config


def shape(dtype, *sides):
    return jax.ShapeDtypeStruct(sides, dtype)


@pytest.fixture
def no_arrays(monkeypatch):
    def refuse(*args, **kwargs):
        raise AssertionError("an array was put on a device")

    monkeypatch.setattr(jax, "device_put", refuse)


def test_small_sets(no_arrays):
    batches = ResidentBatches(Augmentation.of_config(config_with_everything().data), (16, 16, 3))
    resident = {"images": shape(jnp.uint8, 100, 16 * 16 * 3), "labels": shape(jnp.int32, 100),
                "mean": shape(jnp.float32, 16, 16, 3), "std": shape(jnp.float32, 3)}  # fmt: skip
    compiled = jax.jit(batches.train_batch).lower(resident, shape(jnp.int32, 8), KEY).compile()
    assert [x.shape for x in jax.tree.leaves(compiled.out_info)] == [(8, 16, 16, 3), (8,)]
    images, labels = jax.eval_shape(batches.eval_batch, resident, shape(jnp.int32, 5))
    assert (images.shape, images.dtype, labels.shape) == ((5, 16, 16, 3), jnp.float32, (5,))


def test_streamed_sets(no_arrays):
    batches = StreamingBatches(Augmentation.of_config(config_with_everything().data))
    normalizer = {"mean": shape(jnp.float32, 3), "std": shape(jnp.float32, 3)}
    inputs = {"images": shape(jnp.uint8, 8, 20, 20, 3), "labels": shape(jnp.int32, 8)}
    images, labels = jax.eval_shape(batches.train_batch, normalizer, inputs, KEY)
    assert (images.shape, images.dtype, labels.shape) == ((8, 20, 20, 3), jnp.float32, (8,))


def test_they_are_those_of_the_pipeline():
    config, dataset = config_with_everything(), load_dataset("synthetic")
    pipeline = make_resident(dataset, config, make_mesh(jax.devices()[:1]))
    alone = ResidentBatches(Augmentation.of_config(config.data, dataset.train.images), dataset.image_shape)
    arguments = pipeline.train, pipeline.train_inputs(3, 1)[0], jax.random.key(1)
    for one, other in zip(alone.train_batch(*arguments), pipeline.train_batch(*arguments), strict=True):
        np.testing.assert_array_equal(one, other)


def test_a_small_set_comes_in_its_order_and_is_normalised_by_what_is_trained_on():
    """By the config's seed and repeats, each image as often; and by the mean of the training images without others."""
    config, dataset = base_config(), load_dataset("digits", held_out=400)
    config.seed, config.batch_size = 5, 8
    config.data.update({"name": "digits", "held_out": 400, "repeats": 2, "normalization": "per_pixel_mean"})
    pipeline = make_pipeline(config, make_mesh(jax.devices()[:1]))
    expected = [batch_indices(5, number, 8, 1037, 2) for number in (3, 4)]
    np.testing.assert_array_equal(pipeline.train_inputs(3, 2), expected)
    mean = dataset.train.images.mean(axis=0) / 255
    for resident, split in ((pipeline.train, dataset.train), (pipeline.test, dataset.test)):
        images, labels = pipeline.eval_batch(resident, jnp.arange(len(split)))
        np.testing.assert_allclose(images, split.images / 255 - mean, atol=1e-6)
        np.testing.assert_array_equal(labels, split.labels)


@pytest.fixture
def config_of_kind(tiny_folder, tmp_path):  # noqa: F811
    """Configs of a few small images, by `config.data.name`."""

    def make(kind):
        config = base_config()
        config.batch_size = 4
        config.data.update({"name": kind, "image_size": 32, "eval_shorter_side": 36, "shorter_side": (36, 40)})
        config.data.workers = 1
        if kind != "digits":
            config.data.normalization, config.data.folder = "imagenet", str(tiny_folder)
        if kind == "image_masks":
            config.task, config.data.folder = "segmentation", str(shapes_folder(tmp_path / "set"))
        if kind == "voc":
            shown = {f"image{i}": boxes.rectangles(i) for i in range(8)}
            config.task = "detection"
            config.data.folder = str(boxes.write_voc(tmp_path / "set", {"train": [*shown], "test": [*shown]}, shown))
        return config

    return make


@pytest.mark.parametrize("kind", ["digits", "image_folder", "image_masks", "voc"])
def test_the_seed_chooses_the_batches_of_every_kind_of_set(kind, config_of_kind):
    config = config_of_kind(kind)

    def first(seed):
        config.seed = seed
        return jax.tree.leaves(make_pipeline(config, make_mesh(jax.devices()[:1])).train_inputs(0, 1))

    one, again, other = first(1), first(1), first(2)
    for a, b in zip(one, again, strict=True):
        np.testing.assert_array_equal(a, b)
    assert not np.array_equal(one[0], other[0])


@pytest.mark.parametrize("kind", ["image_masks", "voc"])
def test_images_with_masks_or_boxes_move_with_them_alone(kind, config_of_kind):
    """The host has cropped and mirrored both; the step, which sees no mask and no box, must move no pixel."""
    config = config_of_kind(kind)
    config.data.padding, config.data.flip = 4, True
    pipeline = make_pipeline(config, make_mesh(jax.devices()[:1]))
    inputs = jax.tree.map(lambda x: x[0], pipeline.train_inputs(0, 1))
    found, _ = pipeline.train_batch(pipeline.train, inputs, jax.random.key(0))
    images, pixels = (found["images"], inputs.images) if kind == "voc" else (found, inputs["images"])
    sizes = inputs.sizes if kind == "voc" else [(32, 32)] * 4
    expected = (pixels / 255 - np.array([0.485, 0.456, 0.406])) / np.array([0.229, 0.224, 0.225])
    for image, wanted, (height, width) in zip(images, expected, sizes, strict=True):
        np.testing.assert_allclose(image[:height, :width], wanted[:height, :width], atol=1e-5)
