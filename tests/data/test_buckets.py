"""Few shapes for images of many sizes, each image once."""

import jax
import numpy as np
import pytest
from jax.sharding import Mesh

from resnet_jax.data.buckets import bucket_shapes, padded_batches

RNG = np.random.default_rng(0)
MANY = [(int(h), int(w)) for h, w in RNG.integers(40, 500, (300, 2))]


def test_few_sizes_are_not_padded():
    sizes = [(256, 256), (320, 256), (360, 360), (256, 256)]
    assert bucket_shapes(sizes) == sizes


def test_many_sizes_share_three_shapes_that_hold_them():
    shapes = bucket_shapes(MANY)
    assert len(set(shapes)) == 3
    assert all(h <= H and w <= W for (h, w), (H, W) in zip(MANY, shapes, strict=True))


def test_photographs_come_upright_and_across():
    """VOC's 500x375 and 375x500 are not padded to 500x500."""
    sizes = [(375, 500)] * 50 + [(500, 375)] * 30 + [(333, 500)] * 10 + [(500, 500), (300, 200)]
    shapes = bucket_shapes(sizes)
    assert shapes[0] == (384, 512) and shapes[50] == (512, 384)
    assert sum(h * w for h, w in shapes) < 1.1 * sum(h * w for h, w in sizes)


@pytest.mark.parametrize("devices", [1, 4])
def test_every_image_counts_once(devices):
    mesh = Mesh(np.array(jax.devices()[:devices]), ("data",))
    batches = padded_batches(MANY, mesh, pixels=2**20)
    counted = np.concatenate([batch.indices[batch.mask > 0] for batch in batches])
    assert sorted(counted) == list(range(300))
    for batch in batches:
        assert len(batch.indices) % devices == 0
        assert len(batch.indices) * np.prod(batch.shape) <= max(2**20, np.prod(batch.shape)) * devices
        assert all(MANY[i][0] <= batch.shape[0] and MANY[i][1] <= batch.shape[1] for i in batch.indices)
    assert len({(batch.shape, len(batch.indices)) for batch in batches}) <= 3, "each compiles a program"
