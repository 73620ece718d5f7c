"""The five orders of activation, each written out from figure 4 of the 2016 paper, in units and in whole nets."""

import jax
import numpy as np
import pytest
from flax import traverse_util

from resnet_jax.models import ResNet
from resnet_jax.models.blocks import ORDERS
from tests.models import reference as ref

RELU = ref.relu

#: Weight layers of a unit: (kernel size, features in multiples of the width). 2015, figure 5.
LAYERS = {"basic": [(3, 1), (3, 1)], "bottleneck": [(1, 1), (3, 1), (1, 4)], "single": [(3, 1)]}


class UnitReference:
    """One unit of a net: its layers by name, for the functions below, which say in which order they come.

    It strides in its first layer (2015, table 1: "Downsampling is performed by conv3_1, conv4_1, and conv5_1 with a
    stride of 2"), a bottleneck in its first 1x1.
    """

    def __init__(self, weights, path, strides, shortcut):
        self.weights, self.path, self.strides, self.shortcut_kind = weights, path, strides, shortcut
        self.count = sum(f"{path}/conv{i}/kernel" in weights.params for i in (1, 2, 3))

    def conv(self, i, x):
        return self.weights.conv(f"{self.path}/conv{i}", x, self.strides if i == 1 else 1)

    def bn(self, name, x):
        return self.weights.bn(f"{self.path}/{name}", x)

    def shortcut(self, x, residual, projected, norm):
        """Option A or B; B projects `projected`, followed by batch norm if `norm`."""
        if x.shape == residual.shape:
            return x
        if self.shortcut_kind == "A":
            return ref.option_a(x, self.strides, residual.shape[-1])
        y = self.weights.conv(f"{self.path}/shortcut/conv", projected, self.strides)
        return self.bn("shortcut/bn", y) if norm else y


def original(u, x, first):
    """Figure 4 (a): weight, BN, ReLU, ..., weight, BN, addition, ReLU."""
    y = u.bn("bn1", u.conv(1, x))
    for i in range(2, u.count + 1):
        y = u.bn(f"bn{i}", u.conv(i, RELU(y)))
    return RELU(u.shortcut(x, y, x, norm=True) + y)


def bn_after_addition(u, x, first):
    """Figure 4 (b): weight, BN, ReLU, ..., weight, addition, BN, ReLU."""
    y = u.conv(1, x)
    for i in range(2, u.count + 1):
        y = u.conv(i, RELU(u.bn(f"bn{i - 1}", y)))
    return RELU(u.bn("bn_after", u.shortcut(x, y, x, norm=False) + y))


def relu_before_addition(u, x, first):
    """Figure 4 (c): weight, BN, ReLU, ..., weight, BN, ReLU, addition."""
    y = x
    for i in range(1, u.count + 1):
        y = RELU(u.bn(f"bn{i}", u.conv(i, y)))
    return u.shortcut(x, y, x, norm=True) + y


def relu_only_preactivation(u, x, first):
    """Figure 4 (d): ReLU, weight, BN, ..., ReLU, weight, BN, addition."""
    h = x if first else RELU(x)
    y = u.bn("bn1", u.conv(1, h))
    for i in range(2, u.count + 1):
        y = u.bn(f"bn{i}", u.conv(i, RELU(y)))
    return u.shortcut(x, y, h, norm=True) + y


def full_preactivation(u, x, first):
    """Figure 4 (e): BN, ReLU, weight, ..., BN, ReLU, weight, addition."""
    h = x if first else RELU(u.bn("bn_before", x))
    y = u.conv(1, h)
    for i in range(2, u.count + 1):
        y = u.conv(i, RELU(u.bn(f"bn{i - 1}", y)))
    return u.shortcut(x, y, h, norm=False) + y


UNITS = {
    "original": original,
    "bn_after_addition": bn_after_addition,
    "relu_before_addition": relu_before_addition,
    "relu_only_preactivation": relu_only_preactivation,
    "full_preactivation": full_preactivation,
}

ACTIVATIONS = pytest.mark.parametrize("activation", list(UNITS))


def net_reference(weights, x, activation, stage_sizes, shortcut="A"):
    """A net with the CIFAR stem, from images to logits."""
    # "we adopt the first activation right after conv1 and before splitting into two paths" (2016, section 4.1)
    y = RELU(weights.bn("stem/bn", weights.conv("stem/conv", x)))
    for stage, size in enumerate(stage_sizes, start=1):
        for block in range(1, size + 1):
            first_of_net = stage == block == 1
            strides = 2 if block == 1 and stage > 1 else 1
            unit = UnitReference(weights, f"stage{stage}/block{block}", strides, shortcut)
            y = UNITS[activation](unit, y, first_of_net)
    # "for the last Residual Unit [...] an extra activation right after its element-wise addition" (same place)
    if activation == "full_preactivation":
        y = RELU(weights.bn("final/bn", y))
    if activation == "relu_only_preactivation":
        y = RELU(y)
    return weights.dense("head", y.mean(axis=(1, 2)))


def small_net(activation, block="basic", stage_sizes=(1, 1, 1), **fields):
    widths = (4, 6, 8)[: len(stage_sizes)]
    fields = {"num_classes": 5, "shortcut": "A"} | fields
    return ResNet(stage_sizes, widths, block=block, activation=activation, stem="cifar", **fields)


def test_every_order_is_covered_here():
    """An order that is added to the table needs a reference above."""
    assert set(ORDERS) == set(UNITS)


@pytest.mark.parametrize("train", [False, True], ids=["testing", "training"])
@ACTIVATIONS
def test_whole_net(activation, train):
    """From images to logits, one unit a stage; no parameter is left over."""
    net, x = small_net(activation), ref.images(4, 8, 8, 3)
    variables = ref.random_variables(net, x)
    weights = ref.Weights(variables, train)
    expected = net_reference(weights, x, activation, (1, 1, 1))
    actual = net.apply(variables, x, train=train, mutable=["batch_stats"])[0]
    ref.assert_close(actual, expected, 1e-4 if train else 1e-5)
    weights.assert_all_used()


@pytest.mark.parametrize("block", list(LAYERS))
@ACTIVATIONS
def test_whole_net_with_projections(activation, block):
    """Each kind of unit with option B: two in the first stage, so that both first and later units without stride
    are there, and one in a stage that strides.
    """
    net, x = small_net(activation, block, (2, 1), shortcut="B"), ref.images(2, 4, 4, 3)
    variables = ref.random_variables(net, x)
    weights = ref.Weights(variables)
    ref.assert_close(net.apply(variables, x), net_reference(weights, x, activation, (2, 1), "B"))
    weights.assert_all_used()


@pytest.mark.parametrize("block", list(LAYERS))
@pytest.mark.parametrize("shortcut", ["A", "B"])
@ACTIVATIONS
def test_unit(activation, shortcut, block):
    """Every unit of a net by itself, from its own input: first of the net, striding, and neither."""
    net, x = small_net(activation, block, (2, 1), shortcut=shortcut), ref.images(2, 4, 4, 3, seed=5)
    variables = ref.random_variables(net, x, seed=6)
    weights = ref.Weights(variables)
    _, state = net.apply(
        variables,
        x,
        mutable=["intermediates"],
        capture_intermediates=lambda module, name: module.name in ("stem", "block1", "block2") and name == "__call__",
    )
    outputs = {k[:-1]: v[0] for k, v in traverse_util.flatten_dict(state["intermediates"]).items()}
    chain = [("stem",), ("stage1", "block1"), ("stage1", "block2"), ("stage2", "block1")]
    for source, path in zip(chain, chain[1:], strict=False):
        unit = UnitReference(weights, "/".join(path), 2 if path[0] == "stage2" else 1, shortcut)
        expected = UNITS[activation](unit, np.float64(outputs[source]), first=source == ("stem",))
        ref.assert_close(outputs[path], expected)


def test_orders_differ_for_these_inputs():
    """So that the tests above could fail: with the same weights, no two orders give the same unit."""
    variables = ref.random_variables(small_net("original", stage_sizes=(1,)), ref.images(2, 4, 4, 3))
    params, stats = (traverse_util.flatten_dict(variables[k], sep="/") for k in ("params", "batch_stats"))
    for tree in (params, stats):  # every order finds the batch norms that it asks for
        for path in [p for p in tree if "/bn2/" in p]:
            tree |= {path.replace("bn2", name): tree[path] for name in ("bn_before", "bn_after")}
    weights = ref.Weights({"params": params, "batch_stats": stats})
    x = np.float64(ref.images(2, 4, 4, 4))
    outputs = [unit(UnitReference(weights, "stage1/block1", 1, "A"), x, first=False) for unit in UNITS.values()]
    for i, a in enumerate(outputs):
        for b in outputs[:i]:
            assert np.abs(a - b).max() > 0.1


@pytest.mark.parametrize("block", list(LAYERS))
@ACTIVATIONS
def test_parameter_names_and_shapes(activation, block):
    """Masks, conversions and per-layer statistics address parameters by these paths."""
    net = small_net(activation, block, (2, 2), shortcut="B")
    shapes = jax.eval_shape(net.init, jax.random.key(0), ref.images(1, 8, 8, 3))
    params = {k: v.shape for k, v in traverse_util.flatten_dict(shapes["params"], sep="/").items()}
    multiple = LAYERS[block][-1][1]
    expected = {"stem/conv/kernel": (3, 3, 3, 4), "head/kernel": (6 * multiple, 5), "head/bias": (5,)}
    norms = {"stem/bn": 4}
    features = 4
    for stage, width in ((1, 4), (2, 6)):
        for unit in (1, 2):
            path, entering = f"stage{stage}/block{unit}", features
            for i, (size, times) in enumerate(LAYERS[block], start=1):
                expected[f"{path}/conv{i}/kernel"] = (size, size, features, width * times)
                features = width * times
                if i < len(LAYERS[block]) or activation not in ("bn_after_addition", "full_preactivation"):
                    norms[f"{path}/bn{i}"] = features
            if activation == "full_preactivation" and (stage, unit) != (1, 1):
                norms[f"{path}/bn_before"] = entering
            if activation == "bn_after_addition":
                norms[f"{path}/bn_after"] = features
            if entering != features:
                expected[f"{path}/shortcut/conv/kernel"] = (1, 1, entering, features)
                if activation not in ("bn_after_addition", "full_preactivation"):
                    norms[f"{path}/shortcut/bn"] = features
    if activation == "full_preactivation":
        norms["final/bn"] = features
    expected |= {f"{path}/{name}": (size,) for path, size in norms.items() for name in ("scale", "bias")}
    assert params == expected


def test_stride_on_3x3_strides_in_the_second_layer():
    """The "v1.5" bottleneck: same parameters, another result."""
    x = ref.images(2, 8, 8, 3)
    nets = {
        where: small_net("original", "bottleneck", (1, 1), shortcut="B", stride_on=where) for where in ("1x1", "3x3")
    }
    variables = ref.random_variables(nets["3x3"], x)
    w = ref.Weights(variables)
    y = RELU(w.bn("stem/bn", w.conv("stem/conv", x)))
    for path, strides in (("stage1/block1", 1), ("stage2/block1", 2)):
        f = RELU(w.bn(f"{path}/bn1", w.conv(f"{path}/conv1", y)))
        f = RELU(w.bn(f"{path}/bn2", w.conv(f"{path}/conv2", f, strides)))
        f = w.bn(f"{path}/bn3", w.conv(f"{path}/conv3", f))
        y = RELU(w.bn(f"{path}/shortcut/bn", w.conv(f"{path}/shortcut/conv", y, strides)) + f)
    expected = w.dense("head", y.mean(axis=(1, 2)))
    ref.assert_close(nets["3x3"].apply(variables, x), expected)
    assert np.abs(np.asarray(nets["1x1"].apply(variables, x)) - expected).max() > 0.01 * np.abs(expected).max()
