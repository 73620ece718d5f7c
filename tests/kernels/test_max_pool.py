"""Compiled max-pooling against its definition: every window's largest pixel, and the first of equal ones."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from resnet_jax.kernels import build, max_pool
from tests.kernels.direct import calls

#: Name: batch, height and width, channels; size, strides, padding below and above of rows and columns, as given.
WINDOWS = {
    "ImageNet's stem": ((8, 9, 12, 64), (3, 2, 1), ((1, 1), (1, 1))),
    "ImageNet's stem, SAME": ((9, 12, 9, 16), (3, 2, "SAME"), ((0, 1), (1, 1))),
    "VGG": ((8, 6, 7, 48), (2, 2, 0), ((0, 0), (0, 0))),
    "overlapping": ((8, 5, 4, 16), (3, 1, 2), ((2, 2), (2, 2))),
    "pixels that no window sees": ((8, 7, 8, 32), (2, 3, 0), ((0, 0), (0, 0))),
    "one window": ((8, 3, 3, 16), (3, 1, 0), ((0, 0), (0, 0))),
}


def example(shape):
    """Whole numbers, many of them equal, all below what a zero of padding would be."""
    return np.random.default_rng(0).integers(-9, -1, shape).astype(np.float32)


def with_gradient(x, cotangent, window):
    y, pull = jax.vjp(lambda x: max_pool(x, *window), x)
    return y, pull(cotangent)[0]


def by_definition(x, window, pads, cotangent):
    """Outputs, and the images' gradient, window by window."""
    size, strides, _ = window
    padded = np.pad(x, ((0, 0), *pads, (0, 0)), constant_values=-np.inf)
    y, of_padded = np.empty(cotangent.shape, np.float32), np.zeros_like(padded)
    for i in range(y.shape[1]):
        for j in range(y.shape[2]):
            seen = (slice(None), slice(i * strides, i * strides + size), slice(j * strides, j * strides + size))
            pixels = padded[seen].reshape(len(x), size * size, -1)
            first = np.eye(size * size)[pixels.argmax(axis=1)].swapaxes(1, 2)  # argmax takes the first
            y[:, i, j] = pixels.max(axis=1)
            of_padded[seen] += (first * cotangent[:, None, i, j]).reshape(padded[seen].shape)
    (top, _), (left, _) = pads
    return y, of_padded[:, top : top + x.shape[1], left : left + x.shape[2]]


@pytest.mark.parametrize("name", WINDOWS)
def test_the_definition(instructions, name):
    """To the bit: sums are of whole numbers."""
    shape, window, pads = WINDOWS[name]
    x = example(shape)
    cotangent = np.random.default_rng(1).integers(-9, 9, jax.eval_shape(lambda: max_pool(x, *window)).shape)
    cotangent = cotangent.astype(np.float32)
    call = jax.jit(partial(with_gradient, window=window))
    assert calls(call, x, cotangent) == 2
    for found, expected in zip(call(x, cotangent), by_definition(x, window, pads, cotangent), strict=True):
        np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("where", [(1, 1), (0, 0), (2, 2)])
def test_what_is_no_number_stays_none(instructions, where):
    x = example((8, 3, 3, 16))
    x[3, *where, 5] = np.nan
    lost = np.isnan(max_pool(jnp.asarray(x), 3, 1, 0))
    assert lost[3, 0, 0, 5] and lost.sum() == 1


def test_vmap_and_second_derivatives(kernels):
    x = np.stack([example((8, 5, 4, 16)), -example((8, 5, 4, 16))])

    def slope(x):
        return (jax.grad(lambda x: (max_pool(x, 3, 2, 1) ** 3).sum())(x) ** 2).sum()

    call = jax.vmap(jax.grad(slope))
    found = call(x)
    assert calls(call, x) >= 2
    with build.switched_off():
        np.testing.assert_allclose(found, call(x), rtol=1e-6)


class TestLeftToXla:
    @pytest.mark.parametrize("shape", [(8, 4, 4, 24), (7, 4, 4, 16)], ids=["channels", "few images"])
    def test_sizes(self, kernels, shape):
        assert calls(lambda x: max_pool(x, 2, 2, 0), example(shape)) == 0

    def test_windows_of_padding_alone(self, kernels):
        x = example((8, 4, 4, 16))
        assert calls(lambda x: max_pool(x, 2, 1, 2), x) == 0
        assert np.asarray(max_pool(x, 2, 1, 2))[0, 0, 0, 0] == -np.inf

    @pytest.mark.parametrize("padding", [1, "SAME"])
    def test_any_size_of_an_exported_net(self, kernels, padding):
        spec = jax.ShapeDtypeStruct(jax.export.symbolic_shape("n, 2*h, 8, 16"), jnp.float32)
        program = jax.export.export(jax.jit(lambda x: max_pool(x, 3, 2, padding)))(spec)
        x = example((8, 6, 8, 16))
        np.testing.assert_array_equal(program.call(x), max_pool(x, 3, 2, padding))
