"""Compiled batch normalisation against the paper's formulas in float64, with and without the ReLU behind it."""

import re
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from resnet_jax.kernels import build
from resnet_jax.models import ResNet
from resnet_jax.models.features import forward_with_features
from resnet_jax.models.norm import BatchNorm, batch_norm
from tests.kernels.direct import calls, on_two_devices
from tests.models import reference

EPSILON = reference.EPSILON

#: Scale, bias and cotangents where none matters.
PLAIN = (1, 0, (0, 0, 0))

#: (groups, examples, ..., channels).
SHAPES = {
    "few positions": (1, 8, 1, 1, 16),
    "positions that leave a rest": (1, 9, 3, 5, 16),
    "two groups": (2, 64, 5, 7, 32),
    "groups of one example": (8, 1, 3, 3, 64),
    "channels that no power of two holds": (1, 8, 4, 3, 48),
    "channels of several strips": (2, 8, 3, 3, 160),
    "many positions": (1, 50, 19, 21, 16),
    "many channels": (1, 32, 5, 5, 1040),
    "no height, no width": (1, 40, 128),
}


def example(name):
    """Values whose means and deviations differ from channel to channel, scale, bias, and cotangents of all outputs."""
    shape = SHAPES[name]
    draw = np.random.default_rng(len(shape) + sum(shape))
    channels = shape[-1:]
    x = draw.normal(size=shape) * draw.uniform(0.1, 3, channels) + 3 * draw.normal(size=channels)
    small = (shape[0], *[1] * (len(shape) - 2), *channels)
    arrays = (x, draw.normal(size=channels), draw.normal(size=channels))
    cotangents = tuple(draw.normal(size=of) for of in (shape, small, small))
    return *(a.astype(np.float32) for a in arrays), tuple(c.astype(np.float32) for c in cotangents)


def gradients(x, scale, bias, cotangents, relu):
    """Outputs, means and variances, and the gradients of all three arguments."""
    outputs, pull = jax.vjp(partial(batch_norm, epsilon=EPSILON, relu=relu), x, scale, bias)
    return outputs, pull(cotangents)


def by_the_paper(x, scale, bias, cotangents, relu):
    """The same in float64: Ioffe and Szegedy 2015, algorithm 1, and the equations of section 3 for the gradients.

    To the gradients there, which are of a loss that sees outputs alone, those of the mean and variance are added.
    """
    x, scale, bias = (np.asarray(a, np.float64) for a in (x, scale, bias))
    of_y, of_mean, of_var = (np.asarray(c, np.float64) for c in cotangents)
    over = tuple(range(1, x.ndim - 1))
    count = np.prod([x.shape[i] for i in over])
    mean = x.mean(axis=over, keepdims=True)
    var = ((x - mean) ** 2).mean(axis=over, keepdims=True)
    root = np.sqrt(var + EPSILON)
    normalised = (x - mean) / root
    y = scale * normalised + bias
    if relu:
        of_y, y = of_y * (y > 0), np.maximum(y, 0)
    of_normalised = of_y * scale
    of_var = of_var + (of_normalised * (x - mean) * -0.5 * root**-3).sum(over, keepdims=True)
    of_mean = of_mean + (-of_normalised / root).sum(over, keepdims=True)
    of_mean = of_mean + of_var * (-2 * (x - mean)).sum(over, keepdims=True) / count
    of_x = of_normalised / root + of_var * 2 * (x - mean) / count + of_mean / count
    all_but_channels = tuple(range(x.ndim - 1))
    return (y, mean, var), (of_x, np.sum(of_y * normalised, all_but_channels), np.sum(of_y + 0 * x, all_but_channels))


def away_from_the_kink(x, scale, bias, cotangents):
    """Nothing comes back to outputs that a rounding may take over the ReLU's zero."""
    (y, _, _), _ = by_the_paper(x, scale, bias, cotangents, relu=False)
    return (np.where(np.abs(y) < 1e-4, 0, cotangents[0]).astype(np.float32), *cotangents[1:])


def sizes(x, scale, bias, cotangents):
    """How large the terms of each of these results are, with x - mean as large as both together."""
    (_, mean, var), _ = by_the_paper(x, scale, bias, cotangents, relu=False)
    over, all_but_channels = tuple(range(1, x.ndim - 1)), tuple(range(x.ndim - 1))
    of_y, of_mean, of_var = map(np.abs, cotangents)
    count = np.prod([x.shape[i] for i in over])
    root = np.sqrt(var + EPSILON)
    terms = (np.abs(x) + np.abs(mean)) / root
    of_normalised = of_y * np.abs(scale)
    through_statistics = of_normalised.mean(over, keepdims=True) + terms * (of_normalised * terms).mean(
        over, keepdims=True
    )
    of_x = (of_normalised + through_statistics) / root + (of_mean + 2 * of_var * terms * root) / count
    outputs = (np.abs(scale) * terms + np.abs(bias), np.abs(x).max(over, keepdims=True), var)
    return outputs, (of_x, (of_y * terms).sum(all_but_channels), of_y.sum(all_but_channels))


def assert_near(found, expected, size, roundings=8):
    """So many roundings of float32 are allowed, each of 2^-24; sums of chunks go up and down, and add to one."""
    for x, y, of in zip(*map(jax.tree.leaves, (found, expected, size)), strict=True):
        assert x.dtype == np.float32 and x.shape == y.shape
        error = np.abs(np.asarray(x, np.float64) - y) / of
        assert error.max() <= roundings * 2.0**-24, f"{error.max() * 2**24:.2g}"


@pytest.mark.parametrize("relu", [False, True])
@pytest.mark.parametrize("name", SHAPES)
def test_the_papers_formulas(instructions, name, relu):
    *arrays, cotangents = example(name)
    cotangents = away_from_the_kink(*arrays, cotangents) if relu else cotangents
    call = jax.jit(partial(gradients, relu=relu))
    assert calls(call, *arrays, cotangents) == 2
    assert_near(call(*arrays, cotangents), by_the_paper(*arrays, cotangents, relu), sizes(*arrays, cotangents))


def test_what_the_relu_lets_pass_comes_back(instructions):
    """Of whole numbers, whose sums are exact: the bias's gradient is the sum where the output is more than zero."""
    x, scale, bias, (of_y, *others) = example("many positions")
    of_y = np.round(8 * of_y)
    (y, _, _), (_, _, of_bias) = gradients(x, scale, bias, (of_y, *others), relu=True)
    assert 0.2 < np.mean(np.asarray(y) > 0) < 0.8 and np.min(y) == 0
    np.testing.assert_array_equal(of_bias, np.where(np.asarray(y) > 0, of_y, 0).sum((0, 1, 2, 3)))


class TestExtremes:
    def norm(self, x, relu=False):
        return batch_norm(x, jnp.ones(x.shape[-1]), jnp.zeros(x.shape[-1]), EPSILON, relu=relu)

    def test_a_large_mean(self, instructions):
        """At 10,000 deviations the plain way, mean square less squared mean, has no digit left."""
        x = (np.random.default_rng(0).normal(size=(1, 16, 5, 5, 16)) + 1e4).astype(np.float32)
        y, mean, var = self.norm(x)
        expected = by_the_paper(x, *PLAIN, relu=False)[0]
        np.testing.assert_allclose(mean, expected[1], rtol=2.0**-23)
        np.testing.assert_allclose(var, expected[2], rtol=1e-6)
        np.testing.assert_allclose(y, expected[0], atol=1e4 * 2.0**-23)
        with build.switched_off():
            assert np.abs(self.norm(x)[2] - 1).max() > 0.5, "else this test proves nothing"

    @pytest.mark.parametrize("value", [0.0, 0.1, 1234.567])
    def test_constant_channels(self, instructions, value):
        x = np.full((1, 11, 3, 3, 16), value, np.float32)
        y, mean, var = self.norm(x)
        assert np.all(np.asarray(var) >= 0) and np.max(var) <= (2.0**-22 * value) ** 2
        np.testing.assert_allclose(mean, value, rtol=2.0**-23)
        assert np.abs(y).max() <= 2.0**-23 * value / np.sqrt(EPSILON)

    @pytest.mark.parametrize("relu", [False, True])
    @pytest.mark.parametrize("value", [np.nan, np.inf])
    def test_what_is_no_number_stays_none(self, instructions, value, relu):
        """In its channel: a run that diverges must be seen to."""
        x = np.ones((1, 8, 2, 2, 32), np.float32) + np.arange(8, dtype=np.float32).reshape(8, 1, 1, 1)
        x[0, 5, 1, 0, 3] = value
        for found in self.norm(x, relu)[::2]:
            lost = np.isnan(found).any(axis=(0, 1, 2, 3))
            np.testing.assert_array_equal(lost, np.arange(32) == 3)


class TestLeftToXla:
    def check(self, shape, dtype=jnp.float32):
        x = jnp.asarray(np.random.default_rng(0).normal(size=shape), dtype)
        call = partial(batch_norm, scale=jnp.ones(shape[-1]), bias=jnp.zeros(shape[-1]), epsilon=EPSILON)
        assert calls(partial(call, dtype=dtype), x) == 0
        expected = by_the_paper(x, *PLAIN, relu=False)[0]
        found = call(x, dtype=dtype)
        np.testing.assert_allclose(
            found[0].astype(jnp.float32), expected[0], atol=0.02 if dtype != jnp.float32 else 1e-5
        )

    def test_channels_not_in_sixteens(self, kernels):
        self.check((1, 8, 4, 4, 24))

    def test_few_examples(self, kernels):
        self.check((1, build.LEAST_BATCH - 1, 4, 4, 16))

    def test_several_devices(self, kernels):
        x = on_two_devices(np.random.default_rng(0).normal(size=(1, 8, 4, 4, 16)).astype(np.float32), axis=1)
        call = partial(batch_norm, scale=jnp.ones(16), bias=jnp.zeros(16), epsilon=EPSILON)
        assert calls(call, x) == 0 < calls(call, np.asarray(x))
        np.testing.assert_allclose(jax.jit(call)(x)[0], by_the_paper(x, *PLAIN, relu=False)[0][0], atol=1e-5)

    def test_bfloat16(self, kernels):
        self.check((1, 8, 4, 4, 16), jnp.bfloat16)

    def test_scales_that_do_not_fit(self, kernels):
        """An error, not what lies behind them in memory."""
        with pytest.raises((TypeError, ValueError), match="shapes"):
            batch_norm(jnp.ones((1, 8, 4, 4, 32)), jnp.ones(16), jnp.zeros(16), EPSILON)

    def test_testing(self, kernels):
        norm = BatchNorm()
        x = np.ones((8, 4, 4, 16), np.float32)
        variables = norm.init(jax.random.key(0), x, train=False)
        assert calls(partial(norm.apply, train=False), variables, x) == 0
        assert calls(partial(norm.apply, train=True, mutable=["batch_stats"]), variables, x) == 1


class TestTransformations:
    def test_vmap(self, kernels):
        *arrays, cotangents = example("two groups")
        several = [jax.tree.map(lambda a, s=s: a * np.float32(s), (*arrays, cotangents)) for s in (1, 0.5, 3)]
        call = jax.jit(jax.vmap(partial(gradients, relu=True)))
        stacked = jax.tree.map(lambda *a: np.stack(a), *several)
        assert calls(call, *stacked) == 2
        for i, operands in enumerate(several):
            one = gradients(*operands, relu=True)
            for x, y in zip(jax.tree.leaves(call(*stacked)), jax.tree.leaves(one), strict=True):
                np.testing.assert_array_equal(x[i], y)

    def test_second_derivatives(self, kernels):
        """Against XLA's, of a penalty on gradients: a term that lacks would be off by more than a hundredth."""
        x, scale, bias, (weights, *_) = example("positions that leave a rest")
        x = (x - x.mean((1, 2, 3))) / x.std((1, 2, 3)) + 0.3

        def penalty(*args):
            def loss(*args):
                y, mean, var = batch_norm(*args, EPSILON)
                return (weights * y**3).mean() + (mean**2).sum() + (var**2).sum()

            return sum((g**2).sum() for g in jax.grad(loss, (0, 1, 2))(*args))

        call = jax.grad(penalty, (0, 1, 2))
        assert calls(call, x, scale, bias) >= 2
        found = call(x, scale, bias)
        with build.switched_off():
            expected = call(x, scale, bias)
        for a, b in zip(found, expected, strict=True):
            np.testing.assert_allclose(a, b, atol=1e-4 * np.abs(b).max())


class TestInNets:
    """The ReLU behind a batch norm is computed with it, which nobody may notice who looks at what is between them."""

    def net(self):
        net = ResNet((1, 1), (16, 16), stem="cifar", num_classes=5, shortcut="A")
        x = reference.images(8, 6, 6, 3)
        return net, reference.random_variables(net, x, train=False), x

    def test_together(self, kernels):
        net, variables, x = self.net()
        logits = net.apply(variables, x, train=True, mutable=["batch_stats"])[0]

        def train(images):
            return net.apply(variables, images, train=True, mutable=["batch_stats"])[0]

        program = jax.jit(train).lower(x).as_text()
        found = re.findall(r"custom_call @resnet_jax.batch_norm\b.*relu = (\w+)", program)
        assert found == ["true", "true", "false", "true", "false"]  # the stem's; two units' two each
        with build.switched_off():
            expected = net.apply(variables, x, train=True, mutable=["batch_stats"])[0]
        np.testing.assert_allclose(logits, expected, atol=1e-5)

    @pytest.mark.parametrize("train", [False, True])
    def test_responses_are_those_before_the_relu(self, kernels, train):
        net, variables, x = self.net()
        if train:
            _, found = net.apply(
                variables, x, train=True, capture_intermediates=True, mutable=["batch_stats", "intermediates"]
            )
            response = found["intermediates"]["stem"]["bn"]["__call__"][0]
        else:
            response = forward_with_features(net, variables, x, {"stem/bn"}.__contains__)[1]["stem/bn"]
        assert np.min(response) < -0.1
