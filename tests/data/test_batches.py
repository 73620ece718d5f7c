"""Batches are made from shapes alone: a step can be compiled without data or arrays."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from resnet_jax.config import base_config
from resnet_jax.data.augment import Augmentation
from resnet_jax.data.resident import ResidentBatches, make_resident
from resnet_jax.data.sources import load_dataset
from resnet_jax.data.streaming import StreamingBatches
from resnet_jax.training.distributed import make_mesh

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
