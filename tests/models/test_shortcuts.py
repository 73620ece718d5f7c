"""Each way of joining shortcut and residual against a few lines of NumPy, with and without new dimensions."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from resnet_jax.models import ResNet, layers
from resnet_jax.models.norm import BatchNorm
from resnet_jax.models.shortcuts import SHORTCUTS, Shortcut
from tests.models import reference as ref

KEY = jax.random.key(0)

#: (strides, channels of the residual) for a unit that enters with 8x8 pixels and 4 channels.
SAME, CHANGED = (1, 4), (2, 9)
DIMENSIONS = pytest.mark.parametrize("dims", [SAME, CHANGED], ids=["same", "changed"])


class Case:
    """A shortcut with random inputs and weights: `x`, `activated` and `residual` differ, so none can be mixed up."""

    def __init__(self, kind, dims, norm=True, **fields):
        strides, channels = dims
        self.x = ref.images(3, 8, 8, 4, seed=1)
        self.activated = ref.images(3, 8, 8, 4, seed=2)
        self.residual = ref.images(3, 8 // strides, 8 // strides, channels, seed=3)
        self.module = Shortcut(kind, strides, layers.conv, BatchNorm if norm else None, **fields)
        self.variables = ref.random_variables(self.module, self.x, self.activated, self.residual, train=False)
        self.weights = ref.Weights({"params": {}} | self.variables)
        self.identity = ref.option_a(self.x, strides, channels)
        self.strides = strides

    def run(self, train=False):
        inputs = (self.x, self.activated, self.residual)
        rngs = {"dropout": KEY} if train else {}
        return self.module.apply(self.variables, *inputs, train=train, rngs=rngs)

    def gate(self):
        kernel, bias = self.weights.param("gate/kernel"), self.weights.param("gate/bias")
        assert kernel.shape == (1, 1, 4, self.residual.shape[-1])
        return ref.sigmoid(ref.conv2d(self.x, kernel, self.strides, padding=0) + bias)

    def check(self, expected):
        ref.assert_close(self.run(), expected)
        self.weights.assert_all_used()


def test_every_kind_is_covered_here():
    """A shortcut that is added to the table needs a reference below."""
    assert set(SHORTCUTS) == {
        "none", "A", "B", "C", "constant_scaling", "exclusive_gating", "shortcut_only_gating", "conv1x1", "dropout",
    }  # fmt: skip


@DIMENSIONS
def test_none_is_the_residual_alone(dims):
    case = Case("none", dims)
    case.check(np.float64(case.residual))


@DIMENSIONS
def test_option_a_adds_the_input_with_zeros_for_new_channels(dims):
    case = Case("A", dims)
    case.check(case.residual + case.identity)
    assert "params" not in case.variables


def test_option_a_takes_even_pixels_and_pads_half_of_the_channels_on_each_side():
    """Written out by hand: five new channels are two before and three after."""
    case = Case("A", CHANGED)
    added = np.asarray(case.run()) - case.residual
    np.testing.assert_allclose(added[:, :, :, 2:6], case.x[:, [0, 2, 4, 6]][:, :, [0, 2, 4, 6]], atol=1e-6)
    assert not added[..., :2].any()
    assert not added[..., 6:].any()


def test_option_b_is_the_identity_where_dimensions_stay():
    case = Case("B", SAME)
    case.check(case.residual + np.float64(case.x))
    assert "params" not in case.variables


@pytest.mark.parametrize("dims", [CHANGED, (2, 4), (1, 9)], ids=["both", "stride", "channels"])
@pytest.mark.parametrize("norm", [True, False])
def test_option_b_projects_where_dimensions_change(dims, norm):
    """A strided 1x1 convolution of the activated input, with batch norm where the unit has it there."""
    case = Case("B", dims, norm)
    y = ref.conv2d(case.activated, case.weights.param("conv/kernel"), case.strides, padding=0)
    case.check(case.residual + (case.weights.bn("bn", y) if norm else y))


@DIMENSIONS
@pytest.mark.parametrize("norm", [True, False])
@pytest.mark.parametrize("kind", ["C", "conv1x1"])
def test_option_c_projects_everywhere(kind, dims, norm):
    """The 2016 paper's "1x1 conv shortcut" is option C."""
    case = Case(kind, dims, norm)
    y = ref.conv2d(case.activated, case.weights.param("conv/kernel"), case.strides, padding=0)
    case.check(case.residual + (case.weights.bn("bn", y) if norm else y))


@DIMENSIONS
@pytest.mark.parametrize(("on_shortcut", "on_residual"), [(0.5, 1), (0.5, 0.5), (0, 1), (0.25, 2)])
def test_constant_scaling(dims, on_shortcut, on_residual):
    """2016 table 1: lambda on the shortcut, a constant on the residual."""
    case = Case("constant_scaling", dims, shortcut_scale=on_shortcut, residual_scale=on_residual)
    case.check(on_shortcut * case.identity + on_residual * case.residual)


@DIMENSIONS
def test_exclusive_gating(dims):
    """2016 section 3.1: g(x) = sigmoid(W x + b) scales the residual, 1 - g(x) the shortcut."""
    case = Case("exclusive_gating", dims)
    g = case.gate()
    assert g.min() < 0.3 < 0.7 < g.max(), "an even gate would hide which side it is on"
    case.check((1 - g) * case.identity + g * case.residual)


@DIMENSIONS
def test_shortcut_only_gating(dims):
    """2016 section 3.1: the residual is not gated."""
    case = Case("shortcut_only_gating", dims)
    case.check((1 - case.gate()) * case.identity + case.residual)


@pytest.mark.parametrize("bias", [0.0, -6.0])
@pytest.mark.parametrize("kind", ["exclusive_gating", "shortcut_only_gating"])
def test_gate_bias_is_the_initial_one(kind, bias):
    """With -6 the gate starts at 0.0025: nearly the identity (2016, table 1)."""
    case = Case(kind, SAME, gate_bias=bias)
    params = case.module.init(KEY, case.x, case.activated, case.residual, train=False)["params"]
    np.testing.assert_array_equal(params["gate"]["bias"], np.full(4, bias))
    assert params["gate"]["kernel"].any()


def test_fields_of_the_net_reach_every_shortcut():
    """Gate bias, scales and rate are set on the net."""
    small = {"stage_sizes": (1, 1), "widths": (4, 8), "stem": "cifar", "num_classes": 2}
    x = ref.images(1, 8, 8, 3)
    gated = ResNet(shortcut="shortcut_only_gating", gate_bias=-6.0, **small | {"stage_sizes": (1,), "widths": (4,)})
    params = gated.init(KEY, x)["params"]
    np.testing.assert_array_equal(params["stage1"]["block1"]["shortcut"]["gate"]["bias"], np.full(4, -6.0))

    nets = [
        ResNet(shortcut="constant_scaling", shortcut_scale=0.25, residual_scale=2.0, **small),
        ResNet(shortcut="dropout", shortcut_dropout=0.75, **small),
    ]
    for net, on_residual in zip(nets, (2.0, 1.0), strict=True):
        variables = ref.random_variables(net, x)
        w = ref.Weights(variables)
        y = ref.relu(w.bn("stem/bn", w.conv("stem/conv", x)))
        for stage, strides, channels in (("stage1", 1, 4), ("stage2", 2, 8)):
            f = ref.relu(w.bn(f"{stage}/block1/bn1", w.conv(f"{stage}/block1/conv1", y, strides)))
            f = w.bn(f"{stage}/block1/bn2", w.conv(f"{stage}/block1/conv2", f))
            y = ref.relu(0.25 * ref.option_a(y, strides, channels) + on_residual * f)
        ref.assert_close(net.apply(variables, x), w.dense("head", y.mean(axis=(1, 2))))


@DIMENSIONS
@pytest.mark.parametrize("rate", [0.5, 0.2])
def test_dropout_in_training_drops_entries_and_scales_none(dims, rate):
    """As first published: what stays is not divided by the rate of staying."""
    case = Case("dropout", dims, dropout_rate=rate)
    kept = np.asarray(case.run(train=True)) - case.residual
    dropped = np.abs(kept) < 1e-6
    np.testing.assert_allclose(np.where(dropped, case.identity, kept), case.identity, atol=1e-6)
    signal = np.abs(case.identity) > 1e-5  # the padded channels are zero anyhow
    n = signal.sum()
    assert dropped[signal].mean() == pytest.approx(rate, abs=5 * np.sqrt(rate * (1 - rate) / n))


def test_dropout_is_of_single_entries():
    """Neither whole images nor whole channels nor whole positions vanish together."""
    case = Case("dropout", SAME)
    dropped = np.abs(np.asarray(case.run(train=True)) - case.residual) < 1e-6
    for axes in ((1, 2, 3), (1, 2)):
        share = dropped.mean(axis=axes)
        assert 0.2 < share.min() <= share.max() < 0.8
    assert len({row.tobytes() for row in dropped.reshape(-1, 4)}) > 8, "of 16 patterns over channels"


@DIMENSIONS
@pytest.mark.parametrize("rate", [0.5, 0.2])
def test_dropout_in_testing_scales_by_the_rate_of_staying(dims, rate):
    case = Case("dropout", dims, dropout_rate=rate)
    case.check((1 - rate) * case.identity + case.residual)


def test_dropout_follows_its_key():
    """Same key, same entries; another key, others; and units of a net draw differently."""
    case = Case("dropout", SAME)
    args = (case.variables, case.x, case.activated, case.residual)
    first, again, other = (
        np.asarray(case.module.apply(*args, train=True, rngs={"dropout": jax.random.key(seed)})) for seed in (0, 0, 1)
    )
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, other)

    net = ResNet(stage_sizes=(2,), widths=(4,), stem="cifar", num_classes=2, shortcut="dropout")
    x = ref.images(2, 8, 8, 3)
    variables = jax.tree.map(jnp.zeros_like, ref.random_variables(net, x))  # residuals vanish
    variables["params"]["stem"]["bn"]["bias"] = np.ones(4, np.float32)  # and the shortcut carries ones
    _, state = net.apply(
        variables,
        x,
        train=True,
        rngs={"dropout": KEY},
        capture_intermediates=lambda module, name: module.name in ("block1", "block2"),
        mutable=["intermediates", "batch_stats"],
    )
    one, two = (np.asarray(state["intermediates"]["stage1"][b]["__call__"][0]) for b in ("block1", "block2"))
    assert one.mean() == pytest.approx(0.5, abs=0.11)
    assert two.mean() == pytest.approx(0.25, abs=0.1), "the second unit drops a half of its own"
