"""Convolutions of images smaller than the kernel take another way to the same result and gradients."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from resnet_jax.kernels import conv_general_dilated
from resnet_jax.kernels.convolution import conv_of_patches
from tests.models import reference


@pytest.mark.parametrize(
    ("size", "strides", "kernel_size"),
    [(1, 1, 3), (1, 2, 3), (2, 1, 3), (2, 2, 3), (5, 2, 3), (8, 1, 3), (2, 1, 1), (5, 2, 1), (4, 2, 7)],
)
def test_patches_give_the_reference_and_xlas_gradients(size, strides, kernel_size):
    rng = np.random.default_rng(size)
    x = rng.normal(size=(2, size, size, 3)).astype(np.float32)
    w = rng.normal(size=(kernel_size, kernel_size, 3, 4)).astype(np.float32)
    pad = (kernel_size - 1) // 2
    padding = ((pad, pad), (pad, pad))
    expected = reference.conv2d(x, w, strides, pad)
    np.testing.assert_allclose(conv_of_patches(x, w, (strides, strides), padding), expected, rtol=1e-4, atol=1e-4)

    def xla(x, w):
        names = ("NHWC", "HWIO", "NHWC")
        return jax.lax.conv_general_dilated(x, w, (strides, strides), padding, dimension_numbers=names)

    weights = jnp.asarray(rng.normal(size=expected.shape), jnp.float32)
    ours = jax.grad(lambda x, w: jnp.sum(weights * conv_of_patches(x, w, (strides, strides), padding)), (0, 1))(x, w)
    theirs = jax.grad(lambda x, w: jnp.sum(weights * xla(x, w)), (0, 1))(x, w)
    for a, b in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(("size", "patches"), [(2, True), (3, False), (8, False)])
def test_only_images_smaller_than_the_kernel_take_that_way(size, patches):
    """Where XLA is fast, on every accelerator's workload, its own convolution stays."""
    x, w = jnp.ones((1, size, size, 2)), jnp.ones((3, 3, 2, 2))

    def call(x, w):
        names = jax.lax.ConvDimensionNumbers((0, 3, 1, 2), (3, 2, 0, 1), (0, 3, 1, 2))
        return conv_general_dilated(x, w, (1, 1), ((1, 1), (1, 1)), dimension_numbers=names)

    dilated = jax.lax.conv_general_dilated(
        x, w, (1, 1), ((2, 2), (2, 2)), rhs_dilation=(2, 2), dimension_numbers=("NHWC", "HWIO", "NHWC")
    )
    ours = conv_general_dilated(
        x, w, (1, 1), ((2, 2), (2, 2)), rhs_dilation=(2, 2), dimension_numbers=("NHWC", "HWIO", "NHWC")
    )
    np.testing.assert_allclose(ours, dilated, rtol=1e-6)
    traced = jax.jit(call).trace(x, w)
    assert ("stablehlo.convolution" not in traced.lower().as_text()) == patches
    assert "stablehlo.convolution" in traced.lower(lowering_platforms=("tpu",)).as_text()
