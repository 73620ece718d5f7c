"""Layers whose kernel is float32 whatever the images are: against XLA's own gradients in float64."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from resnet_jax.kernels import conv_general_dilated, dot_general
from tests.kernels.direct import NAMES, calls

#: Name: images, kernel, strides, padding, options.
CONVOLUTIONS = {
    "3x3": ((3, 7, 9, 4), (3, 3, 4, 6), (1, 1), ((1, 1), (1, 1)), {}),
    "strided": ((3, 8, 9, 4), (3, 3, 4, 6), (2, 2), ((1, 1), (1, 1)), {}),
    "strided, SAME": ((3, 8, 9, 4), (3, 3, 4, 6), (2, 2), "SAME", {}),
    "a stem": ((2, 15, 18, 3), (7, 7, 3, 5), (2, 2), ((3, 3), (3, 3)), {}),
    "1x1, strided": ((3, 8, 7, 4), (1, 1, 4, 6), (2, 2), ((0, 0), (0, 0)), {}),
    "pixels that no output sees": ((3, 10, 11, 4), (2, 3, 4, 6), (4, 5), "VALID", {}),
    "four paddings": ((3, 6, 7, 4), (4, 3, 4, 6), (2, 1), ((0, 2), (3, 1)), {}),
    "images smaller than the kernel": ((3, 2, 1, 4), (3, 5, 4, 6), (1, 1), ((1, 1), (2, 2)), {}),
    "groups": ((3, 7, 9, 6), (3, 3, 2, 9), (1, 1), ((1, 1), (1, 1)), {"feature_group_count": 3}),
    "groups, strided": ((3, 7, 8, 6), (3, 3, 3, 4), (2, 2), ((1, 1), (1, 1)), {"feature_group_count": 2}),
    "1x1, groups": ((3, 7, 9, 6), (1, 1, 2, 9), (1, 1), ((0, 0), (0, 0)), {"feature_group_count": 3}),
    "dilated": ((3, 7, 9, 4), (3, 3, 4, 6), (1, 1), ((2, 2), (2, 2)), {"rhs_dilation": (2, 2)}),
    "dilated, SAME": ((3, 7, 8, 4), (3, 2, 4, 6), (1, 1), "SAME", {"rhs_dilation": (2, 3)}),
    "dilated groups, strided": (
        (3, 9, 8, 6), (3, 3, 3, 4), (2, 3), ((2, 1), (3, 2)), {"rhs_dilation": (2, 2), "feature_group_count": 2},
    ),
    "dilated images": ((3, 5, 6, 4), (3, 3, 4, 6), (1, 1), ((1, 1), (1, 1)), {"lhs_dilation": (2, 2)}),
}  # fmt: skip


def with_gradients(convolution, images, kernel, cotangent):
    outputs, pull = jax.vjp(convolution, images, kernel)
    return outputs, *pull(cotangent)


def example(name, dtype):
    """A convolution as ours and as XLA's, its arrays with images in the dtype, and XLA's results in float64."""
    images, kernel, strides, padding, options = CONVOLUTIONS[name]
    ours, xlas = (
        partial(function, window_strides=strides, padding=padding, dimension_numbers=NAMES, **options)
        for function in (conv_general_dilated, jax.lax.conv_general_dilated)
    )
    draw = np.random.default_rng(0)
    images, kernel = (jnp.asarray(draw.normal(size=shape), jnp.float32) for shape in (images, kernel))
    outputs = jax.eval_shape(xlas, images, kernel)
    images, cotangent = images.astype(dtype), jnp.asarray(draw.normal(size=outputs.shape), dtype)
    # What is rounded in the layer is rounded here, so that only the sums differ.
    wide = [np.asarray(x, np.float64) for x in (images, kernel.astype(dtype), cotangent)]
    with jax.enable_x64(True):
        expected = [np.asarray(x) for x in with_gradients(xlas, *wide)]
    return ours, (images, kernel, cotangent), expected


@pytest.mark.parametrize("jitted", [True, False])  # without jit a program is as on an accelerator
@pytest.mark.parametrize("name", CONVOLUTIONS)
def test_float32(name, jitted):
    ours, arrays, expected = example(name, jnp.float32)
    with jax.disable_jit(not jitted):
        found = jax.jit(partial(with_gradients, ours))(*arrays)
    for x, y in zip(found, expected, strict=True):
        assert x.dtype == jnp.float32
        np.testing.assert_allclose(x, y, rtol=1e-5, atol=1e-5 * np.abs(y).max())


@pytest.mark.parametrize("jitted", [True, False])
@pytest.mark.parametrize("name", [name for name in CONVOLUTIONS if name != "dilated images"])
def test_bfloat16_images_and_a_float32_kernel(name, jitted):
    """Outputs and the images' gradient are rounded to 8 bits, and the kernel's gradient is as exact as float32's."""
    ours, arrays, expected = example(name, jnp.bfloat16)
    with jax.disable_jit(not jitted):
        *rounded, of_kernel = jax.jit(partial(with_gradients, ours))(*arrays)
    assert of_kernel.dtype == jnp.float32
    np.testing.assert_allclose(of_kernel, expected[2], rtol=1e-5, atol=1e-5 * np.abs(expected[2]).max())
    for x, y in zip(rounded, expected, strict=False):
        assert x.dtype == jnp.bfloat16
        np.testing.assert_allclose(x.astype(jnp.float32), y, rtol=2.0**-7, atol=2.0**-7 * np.abs(y).max())


@pytest.mark.parametrize("function", [conv_general_dilated, dot_general])
def test_a_gradient_of_the_layer_of_a_rounded_kernel_is_rounded(function):
    """What the tests above would see if the kernel were rounded ahead of the layer, as Flax does by itself."""
    shapes, call = {
        conv_general_dilated: (((3, 7, 9, 4), (3, 3, 4, 6)), partial(function, window_strides=(1, 1), padding="SAME",
                                                                     dimension_numbers=NAMES)),
        dot_general: (((8, 16), (16, 4)), partial(function, dimension_numbers=(((1,), (0,)), ((), ())))),
    }[function]  # fmt: skip
    draw = np.random.default_rng(0)
    x, kernel = (jnp.asarray(draw.normal(size=shape), jnp.float32) for shape in shapes)
    x = x.astype(jnp.bfloat16)

    def loss(kernel):
        return (call(x, kernel).astype(jnp.float32) ** 2).sum()

    wide, rounded = jax.grad(loss)(kernel), jax.grad(lambda kernel: loss(kernel.astype(jnp.bfloat16)))(kernel)
    np.testing.assert_array_equal(wide.astype(jnp.bfloat16), rounded.astype(jnp.bfloat16))
    assert wide.dtype == jnp.float32 and np.abs(wide - rounded).max() > 0


@pytest.mark.parametrize("jitted", [True, False])
def test_matrix_products(jitted):
    draw = np.random.default_rng(0)
    x, kernel, cotangent = (jnp.asarray(draw.normal(size=s), jnp.float32) for s in ((8, 33), (33, 5), (8, 5)))
    x, cotangent = x.astype(jnp.bfloat16), cotangent.astype(jnp.bfloat16)
    call = partial(dot_general, dimension_numbers=(((1,), (0,)), ((), ())))
    with jax.disable_jit(not jitted):
        outputs, of_x, of_kernel = jax.jit(partial(with_gradients, call))(x, kernel, cotangent)
    wide, rounded, of_outputs = (np.asarray(a, np.float64) for a in (x, kernel.astype(jnp.bfloat16), cotangent))
    assert (outputs.dtype, of_x.dtype, of_kernel.dtype) == (jnp.bfloat16, jnp.bfloat16, jnp.float32)
    np.testing.assert_allclose(of_kernel, wide.T @ of_outputs, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(outputs.astype(jnp.float32), wide @ rounded, rtol=2.0**-7, atol=0.05)
    np.testing.assert_allclose(of_x.astype(jnp.float32), of_outputs @ rounded.T, rtol=2.0**-7, atol=0.05)


def test_a_precision_leaves_the_kernels_of_cpus_on(kernels):
    """They multiply in float32 by themselves: the same calls, the same bits."""
    draw = np.random.default_rng(0)
    arrays = [jnp.asarray(draw.normal(size=s), jnp.float32) for s in ((8, 5, 5, 16), (3, 3, 16, 16), (8, 5, 5, 16))]
    plain, precise = (
        partial(with_gradients, partial(conv_general_dilated, window_strides=(1, 1), padding="SAME",
                                        dimension_numbers=NAMES, precision=precision))
        for precision in (None, "highest")
    )  # fmt: skip
    assert calls(precise, *arrays) == calls(plain, *arrays) == 3
    for x, y in zip(jax.jit(precise)(*arrays), jax.jit(plain)(*arrays), strict=True):
        np.testing.assert_array_equal(x, y)
