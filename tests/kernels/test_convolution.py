"""Compiled convolutions against direct sums in float64: every kind of window, under every transformation, in nets."""

from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from resnet_jax.kernels import build, conv_general_dilated
from resnet_jax.kernels.convolution import convolution, images_gradient, kernel_gradient
from tests.kernels.direct import NAMES, arrays, assert_sums, calls, on_two_devices

ROOT = Path(__file__).parents[2]

#: Name: batch, height and width, channels, features, taps, strides, padding.
WINDOWS = {
    "3x3": (9, (8, 8), 16, 32, (3, 3), (1, 1), ((1, 1), (1, 1))),
    "3x3, strided": (13, (9, 8), 32, 16, (3, 3), (2, 2), ((1, 1), (1, 1))),
    "a stem, channels not in sixteens": (8, (15, 18), 3, 16, (7, 7), (2, 2), ((3, 3), (3, 3))),
    "channels that leave a rest": (8, (5, 6), 17, 48, (3, 2), (1, 1), ((1, 1), (1, 0))),
    "1x1": (8, (5, 7), 16, 16, (1, 1), (1, 1), ((0, 0), (0, 0))),
    "pixels that no output sees": (8, (5, 6), 16, 16, (1, 1), (2, 2), ((0, 0), (0, 0))),
    "a stride beyond the kernel": (8, (11, 13), 16, 16, (2, 3), (4, 5), ((0, 0), (0, 0))),
    "a stride beyond the image": (8, (3, 2), 16, 16, (3, 2), (5, 7), ((0, 0), (0, 0))),
    "strides of two kinds": (8, (9, 10), 16, 16, (3, 3), (1, 3), ((1, 1), (1, 1))),
    "padding of four kinds": (8, (6, 7), 16, 16, (4, 3), (2, 1), ((0, 2), (3, 1))),
    "padding below alone": (8, (6, 6), 16, 16, (3, 3), (2, 2), ((0, 1), (0, 1))),
    "padding beyond the kernel": (8, (3, 4), 16, 16, (2, 2), (1, 2), ((4, 3), (3, 5))),
    "padded rows never read": (8, (4, 4), 16, 16, (3, 3), (4, 3), ((0, 3), (1, 3))),
    "rows never read": (8, (10, 9), 16, 16, (2, 2), (4, 4), ((0, 0), (0, 0))),
    "images smaller than the kernel": (8, (2, 1), 16, 16, (3, 5), (1, 1), ((1, 1), (2, 2))),
    "one output": (8, (4, 5), 16, 16, (4, 5), (1, 1), ((0, 0), (0, 0))),
    "one column": (8, (6, 3), 16, 16, (3, 3), (1, 2), ((1, 1), (0, 0))),
    "many small images": (131, (2, 2), 16, 32, (3, 3), (1, 1), ((1, 1), (1, 1))),
    "many small images, strided": (70, (3, 3), 16, 16, (3, 3), (2, 2), ((1, 1), (1, 1))),
    "images beyond the cache": (3, (68, 66), 16, 16, (2, 1), (1, 1), ((1, 0), (1, 1))),
    "long rows": (8, (3, 37), 16, 48, (3, 3), (1, 1), ((1, 1), (1, 1))),
    "large pixels": (9, (6, 5), 144, 128, (3, 3), (1, 2), ((1, 1), (0, 1))),
    "a kernel of many blocks": (8, (4, 4), 48, 112, (3, 3), (1, 1), ((1, 1), (1, 1))),
}  # fmt: skip
SAME = ((1, 1), ((1, 1), (1, 1)))


def example(name):
    *sizes, strides, pads = WINDOWS[name]
    return arrays(*sizes, window=(strides, pads)), (strides, pads)


@pytest.mark.parametrize("name", WINDOWS)
def test_direct_sums(instructions, name):
    (images, kernel, cotangent), window = example(name)

    @jax.jit  # one program of all three
    def call(images, kernel, cotangent):
        of_images = None
        if kernel.shape[2] % build.BLOCK == 0:
            of_images = images_gradient(cotangent, kernel, images.shape, window)
        outputs = convolution(images, kernel, window)
        return outputs, of_images, kernel_gradient(images, cotangent, kernel.shape, window)

    assert_sums(call(images, kernel, cotangent), images, kernel, cotangent, window)


def conv(images, kernel, window=SAME, **options):
    return conv_general_dilated(images, kernel, *window, dimension_numbers=NAMES, **options)


def gradients(images, kernel, cotangent, window=SAME):
    """The outputs and both gradients, as a net has them."""
    outputs, pull = jax.vjp(partial(conv, window=window), images, kernel)
    return outputs, *pull(cotangent)


@pytest.mark.parametrize(
    ("name", "count"),
    [("3x3, strided", 3), ("pixels that no output sees", 2), ("a stem, channels not in sixteens", 2)],
)
def test_layers_take_them(kernels, name, count):
    """But for the gradient of a 1x1 kernel, one matrix product, and of images whose channels are not in sixteens."""
    operands, window = example(name)
    call = partial(gradients, window=window)
    assert calls(call, *operands) == count
    assert_sums(jax.jit(call)(*operands), *operands, window)


class TestLeftToXla:
    """What the kernels cannot do, or XLA does faster, has the same sums."""

    def check(self, *sizes):
        operands = arrays(*(sizes or (8, (5, 5), 16, 16, (3, 3))), window=SAME)
        assert calls(gradients, *operands) == 0
        assert_sums(gradients(*operands), *operands, SAME)

    def test_several_devices(self, kernels):
        images, kernel, cotangent = arrays(8, (5, 5), 16, 16, (3, 3), window=SAME)
        shared = (on_two_devices(images), kernel, on_two_devices(cotangent))
        assert calls(gradients, *shared) == 0 < calls(gradients, images, kernel, cotangent)
        assert_sums(jax.jit(gradients)(*shared), images, kernel, cotangent, SAME)

    def test_features_not_in_sixteens(self, kernels):
        self.check(8, (5, 5), 16, 24, (3, 3))

    def test_few_images(self, kernels):
        self.check(build.LEAST_BATCH - 1, (5, 5), 16, 16, (3, 3))

    def test_a_switch(self, kernels, monkeypatch):
        monkeypatch.setenv("RESNET_JAX_KERNELS", "0")
        build.library.cache_clear()
        self.check()

    def test_no_compiler(self, kernels, monkeypatch):
        monkeypatch.setenv("CXX", "no-such-compiler")
        build.library.cache_clear()
        self.check()

    def test_bfloat16(self, kernels):
        """Its sums are of float32's products, rounded once: to 8 bits, 2^-9 of the sum."""
        images, kernel, cotangent = (jnp.asarray(x, jnp.bfloat16) for x in arrays(8, (5, 5), 16, 16, (3, 3), SAME))
        assert calls(conv, images, kernel) == 0
        exact = (images.astype(jnp.float32), kernel.astype(jnp.float32))
        assert calls(conv, *exact) == 1
        wide = np.asarray(conv(*exact))
        slack = 2 * 24 * 2.0**-24 * np.asarray(conv(*map(jnp.abs, exact)))  # of two sums of 144
        error = np.abs(np.asarray(conv(images, kernel), np.float32) - wide)
        assert np.all(error <= 2.0**-8 * np.abs(wide) + slack) and error.max() > 0

    def test_any_batch_and_any_size_of_an_exported_net(self, kernels):
        images, kernel, _ = arrays(8, (5, 5), 16, 16, (3, 3), SAME)
        for shape in ("n, 5, 5, 16", "8, h + 3, 5, 16"):
            spec = jax.ShapeDtypeStruct(jax.export.symbolic_shape(shape), jnp.float32)
            program = jax.export.export(jax.jit(lambda x: conv(x, kernel)))(spec)
            assert "resnet_jax." not in program.mlir_module()
            assert_sums((program.call(images), None, None), images, kernel, np.ones((8, 5, 5, 16)), SAME)

    def test_an_exported_net_of_one_batch(self, kernels):
        """It is for other machines, which have no such library."""
        images, kernel, _ = arrays(8, (5, 5), 16, 16, (3, 3), SAME)
        program = jax.export.export(jax.jit(lambda x: conv(x, kernel)))(images)
        assert "resnet_jax." not in program.mlir_module()
        assert_sums((program.call(images), None, None), images, kernel, np.ones((8, 5, 5, 16)), SAME)

    @pytest.mark.parametrize("size", [(2, 5), (1, 5), (0, 5)])
    def test_no_outputs(self, kernels, size):
        window = ((1, 1), ((0, 0), (0, 0)))
        images, kernel = jnp.ones((8, *size, 16)), jnp.ones((3, 3, 16, 16))
        outputs, *both = gradients(images, kernel, jnp.ones((8, 0, 3, 16)), window)
        assert outputs.shape == (8, 0, 3, 16) and not any(map(np.any, both))

    def test_channels_that_do_not_fit(self, kernels):
        """An error, not what lies behind the kernel in memory."""
        with pytest.raises(ValueError, match="feature dimension"):
            conv(jnp.ones((8, 5, 5, 16)), jnp.ones((3, 3, 8, 16)))

    def test_groups_and_dilation(self, kernels):
        images, kernel = jnp.ones((8, 5, 5, 16)), jnp.ones((3, 3, 8, 16))
        assert calls(partial(conv, feature_group_count=2), images, kernel) == 0
        assert calls(partial(conv, rhs_dilation=(2, 2)), images, jnp.ones((3, 3, 16, 16))) == 0


class TestTransformations:
    """A kernel's sums are the same bits wherever it is called from, so that one program is like another."""

    def same(self, found, expected):
        for x, y in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
            np.testing.assert_array_equal(x, y)

    def test_again_and_compiled(self, kernels):
        operands, window = example("many small images")
        first = gradients(*operands, window)
        call = jax.jit(partial(gradients, window=window))
        for _ in range(3):
            self.same(call(*operands), first)

    def test_without_jit(self, kernels):
        operands, window = example("3x3")
        with jax.disable_jit():
            found = gradients(*operands, window)
        assert_sums(found, *operands, window)

    def test_vmap(self, kernels):
        several = [arrays(8, (4, 5), 16, 16, (3, 3), SAME, seed) for seed in range(3)]
        call = jax.jit(jax.vmap(gradients))
        stacked = [np.stack(x) for x in zip(*several, strict=True)]
        assert calls(call, *stacked) == 3
        for i, operands in enumerate(several):
            self.same([x[i] for x in call(*stacked)], gradients(*operands))

    def test_remat_and_scan(self, kernels):
        """Three layers, one behind the other: unrolled, scanned over, and computed again on the way back."""
        images, *_ = arrays(8, (4, 5), 16, 16, (3, 3), SAME)
        stack = np.stack([arrays(8, (4, 5), 16, 16, (3, 3), SAME, seed)[1] / 12 for seed in range(3)])

        def layer(x, kernel):
            return jax.nn.relu(conv(x, kernel)), None

        def unrolled(images, stack):
            for kernel in stack:
                images, _ = layer(images, kernel)
            return images.sum()

        def scanned(layer, images, stack):
            return jax.lax.scan(layer, images, stack)[0].sum()

        expected = jax.jit(jax.grad(unrolled, (0, 1)))(images, stack)
        assert all(np.abs(x).max() > 0.1 for x in expected)
        for again in (partial(scanned, layer), partial(scanned, jax.checkpoint(layer)), jax.checkpoint(unrolled)):
            call = jax.grad(again, (0, 1))
            assert calls(call, images, stack) >= 3
            self.same(jax.jit(call)(images, stack), expected)

    def test_second_derivatives(self, kernels):
        """Of a gradient's size, against XLA's: four sums of up to 160 products one behind the other."""
        images, kernel, _ = arrays(8, (4, 5), 16, 16, (3, 3), SAME)

        def penalty(convolution, images, kernel):
            def squares(images, kernel):
                return (convolution(images, kernel) ** 2).sum()

            return sum((g**2).sum() for g in jax.grad(squares, (0, 1))(images, kernel))

        xlas = partial(jax.lax.conv_general_dilated, window_strides=(1, 1), padding=SAME[1], dimension_numbers=NAMES)
        found, expected = (jax.grad(partial(penalty, f), (0, 1))(images, kernel) for f in (conv, xlas))
        assert calls(jax.grad(partial(penalty, conv)), images, kernel) > 0
        for x, y in zip(found, expected, strict=True):
            assert np.abs(x - y).max() <= 4 * 2 * np.sqrt(160) * 2.0**-24 * np.abs(y).max()
