"""Padding and initialisation, the two places where reproductions go wrong first."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from flax import traverse_util

from resnet_jax.kernels import max_pool
from resnet_jax.models import ResNet, layers
from resnet_jax.models.registry import create_model
from resnet_jax.models.resnet import Stem
from tests.models import reference as ref


@pytest.mark.parametrize("side", [8, 9])
@pytest.mark.parametrize(("size", "strides"), [(1, 1), (1, 2), (3, 1), (3, 2), (7, 2)])
def test_convolution_pads_the_same_on_every_side(size, strides, side):
    x = ref.images(2, side, side, 3)
    conv = layers.conv(5, size, strides)
    variables = ref.random_variables(conv, x)
    kernel = variables["params"]["kernel"]
    assert kernel.shape == (size, size, 3, 5)
    ref.assert_close(conv.apply(variables, x), ref.conv2d(x, kernel, strides, padding=(size - 1) // 2))


@pytest.mark.parametrize("size", [3, 7])
def test_same_padding_would_see_other_pixels(size):
    """At an even side and stride 2, SAME pads one pixel less before: that the check above can tell them apart."""
    x = ref.images(2, 8, 8, 3)
    conv = layers.conv(5, size, 2)
    variables = ref.random_variables(conv, x)
    same = jax.lax.conv_general_dilated(
        x, variables["params"]["kernel"], (2, 2), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
    )
    ours = conv.apply(variables, x)
    assert same.shape == ours.shape
    assert np.abs(np.asarray(same) - np.asarray(ours)).max() > 0.5


@pytest.mark.parametrize("side", [8, 9])
@pytest.mark.parametrize(("window", "strides", "padding"), [(3, 2, 1), (2, 2, 0)])
def test_max_pool_ignores_its_padding(window, strides, padding, side):
    """All pixels are negative, so that a padding of zeros would win."""
    x = -1 - np.abs(ref.images(2, side, side, 3))
    expected = ref.max_pool(x, window, strides, padding)
    ref.assert_close(max_pool(x, window, strides, padding), expected)
    if padding and side % 2 == 0:
        same = jax.lax.reduce_window(x, -np.inf, jax.lax.max, (1, 3, 3, 1), (1, 2, 2, 1), "SAME")
        assert np.abs(np.asarray(same) - expected).max() > 0.1


def test_imagenet_stem_is_convolution_norm_relu_pool():
    """7x7/2 padded by 3, then 3x3/2 max-pool padded by 1: 16 pixels become 4."""
    x = ref.images(2, 16, 16, 3)
    net = ResNet(stage_sizes=(1,), widths=(4,), num_classes=2)
    variables = ref.random_variables(net, x)
    weights = ref.Weights(variables)
    y = ref.conv2d(x, weights.param("stem/conv/kernel"), 2, padding=3)
    expected = ref.max_pool(ref.relu(weights.bn("stem/bn", y)), 3, 2, padding=1)
    _, state = net.apply(
        variables, x, mutable=["intermediates"], capture_intermediates=lambda module, _: isinstance(module, Stem)
    )
    ref.assert_close(state["intermediates"]["stem"]["__call__"][0], expected)
    assert expected.shape == (2, 4, 4, 4)


def test_cifar_stem_keeps_the_size():
    net = ResNet(stage_sizes=(1,), widths=(4,), stem="cifar", num_classes=2)
    x = ref.images(2, 8, 8, 3)
    variables = ref.random_variables(net, x)
    assert variables["params"]["stem"]["conv"]["kernel"].shape == (3, 3, 3, 4)
    weights = ref.Weights(variables)
    expected = ref.relu(weights.bn("stem/bn", ref.conv2d(x, weights.param("stem/conv/kernel"), 1, padding=1)))
    _, state = net.apply(
        variables, x, mutable=["intermediates"], capture_intermediates=lambda module, _: isinstance(module, Stem)
    )
    ref.assert_close(state["intermediates"]["stem"]["__call__"][0], expected)


def test_average_pool_is_over_positions():
    x = ref.images(2, 3, 5, 4)
    expected = x.astype(np.float64).reshape(2, 15, 4).sum(axis=1) / 15
    ref.assert_close(layers.average_pool(x), expected)
    ref.assert_close(layers.average_pool(x, 5), x.astype(np.float64)[:, :, :5].mean(axis=(1, 2)))


def test_average_pool_of_a_window_is_the_authors():
    """Their pool5, 7x7 at a stride of 1, then the mean of the map: a position counts as the windows that hold it."""
    x = ref.images(2, 10, 20, 4)
    windows = [x[:, i : i + 7, j : j + 7].astype(np.float64).mean(axis=(1, 2)) for i in range(4) for j in range(14)]
    ref.assert_close(layers.average_pool(x, 7), np.mean(windows, axis=0))
    weights = [sum(i <= k < i + 7 for i in range(14)) * 20 / (7 * 14) for k in range(20)]
    assert (round(min(weights), 2), round(max(weights), 2)) == (0.20, 1.43)
    (line,) = layers.average_pool(np.eye(20, dtype=np.float32)[None, None], 7)
    np.testing.assert_allclose(line * 20, weights, rtol=1e-6)


def test_a_net_that_keeps_its_pool_averages_the_map_of_class_scores():
    """As the authors test: classify each 7x7 average, then average the scores."""
    net = create_model("resnet18", stage_sizes=(1, 1, 1, 1), widths=(4, 4, 4, 8), num_classes=3)
    x = ref.images(1, 320, 288, 3)
    variables = ref.random_variables(net, x)
    features = create_model("resnet18", stage_sizes=(1, 1, 1, 1), widths=(4, 4, 4, 8), features_only=True)
    shared = {"params": {k: v for k, v in variables["params"].items() if k != "head"}}
    maps = np.asarray(features.apply(shared | {"batch_stats": variables["batch_stats"]}, x)[-1], np.float64)
    assert maps.shape == (1, 10, 9, 8)
    head = variables["params"]["head"]
    scores = [
        maps[:, i : i + 7, j : j + 7].mean(axis=(1, 2)) @ head["kernel"] + head["bias"]
        for i in range(4)
        for j in range(3)
    ]
    ref.assert_close(net.clone(pool_size=7).apply(variables, x), np.mean(scores, axis=0))
    assert np.abs(net.apply(variables, x) - np.mean(scores, axis=0)).max() > 1e-4


def check_he_normal(kernel, fan):
    """Moments and range of a normal with variance 2 / fan, within five deviations of each estimate.

    The variance of n normal values has a relative deviation of sqrt(2 / n), their kurtosis one of sqrt(24 / n),
    their mean one of sqrt(1 / n). A normal truncated at two deviations has kurtosis 2.4.
    """
    values = np.asarray(kernel, np.float64).ravel() / np.sqrt(2 / fan)
    n = values.size
    assert abs(values.mean()) < 5 / np.sqrt(n)
    assert values.var() == pytest.approx(1, abs=5 * np.sqrt(2 / n))
    if n > 20_000:
        kurtosis = (values**4).mean() / values.var() ** 2
        assert kurtosis == pytest.approx(3, abs=5 * np.sqrt(24 / n))
        # Of 20,000 normal values the largest lies beyond 3.5 but for a chance of 1e-4; truncated ones end at 2.3.
        assert np.abs(values).max() > 3.5


@pytest.mark.parametrize("mode", ["fan_in", "fan_out"])
def test_wide_convolution_has_variance_two_over_fan(mode):
    """With 288 and 1152 connections, the two fans and lecun_normal's half are far outside the bound."""
    conv = layers.conv(128, 3, init_mode=mode)
    kernel = conv.init(jax.random.key(0), jnp.zeros((1, 4, 4, 32)))["params"]["kernel"]
    check_he_normal(kernel, {"fan_in": 9 * 32, "fan_out": 9 * 128}[mode])


@pytest.mark.parametrize("mode", ["fan_in", "fan_out"])
@pytest.mark.parametrize(
    "shape", [(3, 3, 3, 16), (1, 1, 256, 256), (3, 3, 128, 128), (64, 10), (7, 7, 64, 171), (4200, 1000)]
)
def test_values_are_those_of_a_draw_of_the_kernels_own(mode, shape):
    """Bit by bit, whether less, just as much or more is drawn than the kernel needs; Flax's to the last digit."""
    key = jax.random.key(5)
    fan = int(np.prod(shape[:-1]) if mode == "fan_in" else np.prod(shape[:-2]) * shape[-1])
    found = layers.he_normal(mode)(key, shape, jnp.float32)
    drawn = np.asarray(jax.random.normal(key, shape, jnp.float32))
    np.testing.assert_array_equal(found, drawn * np.sqrt(np.float32(2 / fan)))
    flax = nn.initializers.variance_scaling(2.0, mode, "normal")(key, shape, jnp.float32)
    np.testing.assert_allclose(found, flax, rtol=2.0**-22, atol=0)  # JAX 0.12 scales inside the draw


def test_default_mode_is_fan_in():
    """As in Caffe and the 2015 paper."""
    kernel = layers.conv(128, 3).init(jax.random.key(0), jnp.zeros((1, 4, 4, 32)))["params"]["kernel"]
    check_he_normal(kernel, 9 * 32)


def test_classifier_has_variance_two_over_inputs_and_no_bias():
    params = layers.dense(1000, jnp.float32, "head").init(jax.random.key(0), jnp.zeros((1, 256)))["params"]
    check_he_normal(params["kernel"], 256)
    assert params["bias"].shape == (1000,)
    assert not params["bias"].any()


@pytest.mark.parametrize("mode", ["fan_in", "fan_out"])
def test_every_kernel_of_a_whole_net(mode):
    """Stem, units, projections and gates take the net's mode, each its own values; scales are one, biases zero."""
    seen = {}
    for shortcut in ("B", "exclusive_gating"):
        net = ResNet(stage_sizes=(2, 1), widths=(32, 64), shortcut=shortcut, init_mode=mode, stem="cifar")
        variables = net.init(jax.random.key(0), jnp.zeros((1, 4, 4, 3)))
        for path, value in traverse_util.flatten_dict(variables["params"], sep="/").items():
            layer, kind = path.rsplit("/", 1)
            if kind == "kernel":
                if layer != "head":  # the classifier goes by its inputs in either mode
                    receptive = np.prod(value.shape[:-2])
                    check_he_normal(value, receptive * value.shape[-2 if mode == "fan_in" else -1])
                seen[shortcut, layer] = value
            else:
                assert kind in ("scale", "bias")
                assert (value == (kind == "scale")).all(), path
        for path, value in traverse_util.flatten_dict(variables["batch_stats"], sep="/").items():
            assert (value == path.endswith("/var")).all(), path
        kernels = [value for (kind, _), value in seen.items() if kind == shortcut]
        assert not any(np.array_equal(a, b) for i, a in enumerate(kernels) for b in kernels[:i])
    assert {("B", "stem/conv"), ("B", "stage1/block2/conv2"), ("B", "stage2/block1/shortcut/conv")} <= seen.keys()
    assert {("exclusive_gating", f"stage{i}/block1/shortcut/gate") for i in (1, 2)} <= seen.keys()
