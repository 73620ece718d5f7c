"""Features of regions against their definitions, and their gradients by finite differences."""

from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from resnet_jax.models.detection.roi import roi_align, roi_max_pool
from tests.models.detection import definitions

SIDE = 60.0


@pytest.fixture(scope="module")
def features() -> np.ndarray:
    return np.random.default_rng(0).normal(size=(15, 15, 2)).astype(np.float32)


@pytest.fixture(scope="module")
def boxes() -> np.ndarray:
    return definitions.random_boxes(np.random.default_rng(1), 30)


@pytest.mark.parametrize(("aligned", "samples", "size"), [(True, 2, 7), (False, 2, 7), (True, 1, 3), (False, 3, 2)])
def test_roi_align(features: np.ndarray, boxes: np.ndarray, aligned: bool, samples: int, size: int) -> None:
    """Boxes that reach beyond the image are among them: their samples are zero from one position outside on."""
    boxes = np.concatenate([boxes, boxes[:5] * 3 - 40])
    found = jax.jit(partial(roi_align, size=size, scale=0.25, samples=samples, aligned=aligned))(features, boxes)
    expected = [definitions.roi_align(features, box, size, 0.25, samples, aligned) for box in boxes]
    np.testing.assert_allclose(found, expected, atol=2e-5)


@pytest.mark.parametrize(("size", "scale"), [(7, 0.25), (2, 0.25), (14, 0.25), (3, 1 / 4.3)])
def test_roi_max_pool_is_exact(features: np.ndarray, boxes: np.ndarray, size: int, scale: float) -> None:
    found = jax.jit(partial(roi_max_pool, size=size, scale=scale))(features, boxes)
    expected = [definitions.roi_max_pool(features, box, size, np.float32(scale)) for box in boxes]
    np.testing.assert_array_equal(found, np.array(expected, np.float32))


@pytest.mark.parametrize(
    "pool", [partial(roi_align, size=3, scale=0.25), partial(roi_align, size=3, scale=0.25, aligned=False),
             partial(roi_max_pool, size=3, scale=0.25)]
)  # fmt: skip
def test_gradients_by_finite_differences(pool: Callable, features: np.ndarray, boxes: np.ndarray) -> None:
    weights = np.random.default_rng(2).normal(size=(len(boxes), 3, 3, 2)).astype(np.float32)

    @jax.jit
    def loss(x: jax.Array) -> jax.Array:
        return jnp.sum(pool(x, boxes) * weights)

    gradient = np.asarray(jax.jit(jax.grad(loss))(jnp.asarray(features)))
    step = 1e-2  # smaller than the gaps between values, so that each maximum stays where it is
    for place in [(0, 0, 0), (3, 7, 1), (14, 14, 0), (8, 2, 1), (5, 5, 0)]:
        difference = np.zeros_like(features)
        difference[place] = step
        change = float(loss(features + difference) - loss(features - difference)) / (2 * step)
        assert abs(gradient[place] - change) < 0.02 + 0.01 * abs(change), place
    assert np.abs(gradient).max() > 0.1
