"""Fields of a net: combinations that build, combinations that are refused and how, and what each field does."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from flax import traverse_util

from resnet_jax.errors import UserError
from resnet_jax.models import ResNet
from resnet_jax.models.summary import summarize
from tests.models import reference as ref

KEY = jax.random.key(0)
BLOCKS = ("basic", "bottleneck", "single")
SHORTCUTS = (
    "none", "A", "B", "C", "constant_scaling", "exclusive_gating", "shortcut_only_gating", "conv1x1", "dropout",
)  # fmt: skip
PADDING_SHORTCUTS = ("A", "constant_scaling", "exclusive_gating", "shortcut_only_gating", "dropout")
ORDERS = (
    "original", "bn_after_addition", "relu_before_addition", "relu_only_preactivation", "full_preactivation",
)  # fmt: skip
ENDS_IN_NORM = ("original", "relu_only_preactivation")


def net(**fields):
    return ResNet(**{"stage_sizes": (1, 1), "widths": (4, 8), "stem": "cifar", "num_classes": 3} | fields)


@pytest.mark.parametrize(("block", "shortcut", "activation"), itertools.product(BLOCKS, SHORTCUTS, ORDERS))
def test_every_block_shortcut_and_order_builds(block, shortcut, activation):
    """The fields are orthogonal: any of these combinations trains and tests."""
    model = net(block=block, shortcut=shortcut, activation=activation)

    def run(key, x):
        variables = model.init(key, x)
        trained, _ = model.apply(variables, x, train=True, rngs={"dropout": key}, mutable=["batch_stats"])
        return variables, trained

    variables, logits = jax.eval_shape(run, KEY, jax.ShapeDtypeStruct((2, 8, 8, 3), jnp.float32))
    assert logits.shape == (2, 3)
    # Units put out the block's multiple of the width, whatever joins them: the classifier's inputs say so.
    assert variables["params"]["head"]["kernel"].shape == (8 * (4 if block == "bottleneck" else 1), 3)


REFUSED = {
    "unknown block": ({"block": "bottelneck"}, r"unknown block 'bottelneck'; did you mean bottleneck"),
    "unknown stem": ({"stem": "cifar10"}, r"unknown stem 'cifar10'; did you mean cifar"),
    "unknown shortcut": ({"shortcut": "conv1x2"}, r"unknown shortcut 'conv1x2'; did you mean conv1x1"),
    "unknown activation": ({"activation": "full_preact"}, r"unknown activation .*full_preactivation"),
    "unknown stride_on": ({"stride_on": "5x5", "block": "bottleneck"}, r"unknown stride_on '5x5'.*3x3"),
    "unknown init_mode": ({"init_mode": "fan_avg"}, r"unknown init_mode 'fan_avg'.*fan_in"),
    "unknown precision": ({"precision": "higest"}, r"unknown precision 'higest'; did you mean highest"),
    "unknown padding": ({"padding": "valid"}, r"unknown padding 'valid'; known: same, symmetric"),
    "unknown shortcut_zeros": ({"shortcut_zeros": "ends"}, r"unknown shortcut_zeros 'ends'; did you mean end"),
    "unknown head": ({"head": "fcnn"}, r"unknown head 'fcnn'; did you mean fcn"),
    "negative epsilon": ({"norm_epsilon": -1e-5}, r"norm_epsilon=-1e-05 must be in \[0, 1\)"),
    "large epsilon": ({"norm_epsilon": 1.0}, r"norm_epsilon=1.0 must be in \[0, 1\)"),
    "a second head of a net that classifies": (
        {"aux_head": True},
        r"aux_head and head_width are for nets that segment",
    ),
    "a head's width of a net that classifies": (
        {"head_width": 8},
        r"aux_head and head_width are for nets that segment",
    ),
    "a second head without a stage": (
        {"head": "fcn", "aux_head": True, "stage_sizes": (1,), "widths": (4,)},
        r"aux_head is on the last stage but one, and this net has one stage",
    ),
    "lengths": ({"stage_sizes": (1, 1, 1)}, r"stage_sizes \(1, 1, 1\) and widths \(4, 8\).*one entry for each stage"),
    "no stages": ({"stage_sizes": (), "widths": ()}, r"stage_sizes \(\) and widths \(\)"),
    "empty stage": ({"stage_sizes": (1, 0)}, r"1 or more"),
    "no width": ({"widths": (4, 0)}, r"1 or more"),
    "no classes": ({"num_classes": -1}, r"num_classes 1 or more, or 0 for no classifier"),
    "no pool": ({"pool_size": 0}, r"pool_size=0 must be 1 or more"),
    "a pool of a net that segments": ({"pool_size": 2, "head": "fcn"}, r"pool_size=2 is for nets that classify"),
    "negative group": ({"bn_group_size": -1}, r"bn_group_size=-1 must be 0 \(the whole batch\) or more"),
    "zero_init_last of a plain net": ({"shortcut": "none", "zero_init_last": True}, r"zero_init_last needs a shortcut"),
    "zero_init_last after addition": (
        {"activation": "bn_after_addition", "zero_init_last": True},
        r"zero_init_last needs .*batch norm.*'bn_after_addition'",
    ),
    # A ReLU behind a scale of zero has no gradient: these residuals would never train.
    "zero_init_last before a ReLU": (
        {"activation": "relu_before_addition", "zero_init_last": True},
        r"zero_init_last needs .*batch norm.*'relu_before_addition'",
    ),
    "zero_init_last with pre-activation": (
        {"activation": "full_preactivation", "zero_init_last": True},
        r"zero_init_last needs .*batch norm.*'full_preactivation'",
    ),
    "stride_on of basic units": ({"stride_on": "3x3"}, r"stride_on='3x3' is for bottleneck blocks; block 'basic'"),
    "stride_on of single layers": ({"stride_on": "3x3", "block": "single"}, r"stride_on='3x3' .*'single'"),
    "gate_bias without gates": (
        {"shortcut": "A", "gate_bias": -6.0},
        r"gate_bias=-6.0 is for shortcut exclusive_gating or shortcut_only_gating, not 'A'",
    ),
    "shortcut_scale": ({"shortcut": "B", "shortcut_scale": 0.5}, r"shortcut_scale=0.5 is for .*constant_scaling.*'B'"),
    "residual_scale": ({"shortcut": "C", "residual_scale": 0.5}, r"residual_scale=0.5 is for .*constant_scaling"),
    "shortcut_dropout": ({"shortcut": "A", "shortcut_dropout": 0.1}, r"shortcut_dropout=0.1 is for .*dropout, not 'A'"),
    "dropout of all": ({"shortcut": "dropout", "shortcut_dropout": 1.0}, r"shortcut_dropout=1.0 must be in \[0, 1\)"),
    "groups of basic units": ({"groups": 2}, r"groups=2 and width_per_group=64 are for bottleneck blocks, not 'basic'"),
    "width_per_group of single layers": ({"width_per_group": 4, "block": "single"}, r"width_per_group=4 .*'single'"),
    "no whole width": ({"width_per_group": 3, "block": "bottleneck"}, r"width_per_group=3 gives width 4 no whole"),
    "no groups": ({"groups": 0, "block": "bottleneck"}, r"groups.* must be 1 or more"),
    "no stem": ({"stem_width": 0}, r"stem_width must be 1 or more"),
    "a stem to narrow": ({"stem_width": 6, "shortcut": "A"}, r"cannot narrow stem_width=6 to 4; use shortcut B or C"),
    "dropout in bottlenecks": ({"unit_dropout": 0.3, "block": "bottleneck"}, r"unit_dropout=0.3 is for basic blocks"),
    "dropout of whole units": ({"unit_dropout": 1.0}, r"unit_dropout=1.0 must be in \[0, 1\)"),
    "dropout in a loop": ({"unit_dropout": 0.3, "scan": True}, r"scan is for units .* draw nothing"),
    "negative dropout": ({"shortcut": "dropout", "shortcut_dropout": -0.1}, r"must be in \[0, 1\)"),
}


@pytest.mark.parametrize(("fields", "message"), REFUSED.values(), ids=REFUSED)
def test_senseless_fields_are_refused_at_construction(fields, message):
    with pytest.raises(UserError, match=message) as error:
        net(**fields)
    assert "\n" not in str(error.value), "the command line prints it as one line"


@pytest.mark.parametrize("shortcut", PADDING_SHORTCUTS)
def test_padding_shortcuts_cannot_narrow(shortcut):
    """They fill missing channels with zeros: there is no rule for surplus ones."""
    with pytest.raises(UserError, match=rf"shortcut '{shortcut}' .*cannot narrow widths \(8, 4\); use shortcut B or C"):
        net(widths=(8, 4), shortcut=shortcut)


@pytest.mark.parametrize("shortcut", ["none", "B", "C", "conv1x1"])
def test_other_shortcuts_can_narrow(shortcut):
    model = net(widths=(8, 4), shortcut=shortcut)
    logits, _ = jax.eval_shape(model.init_with_output, KEY, jax.ShapeDtypeStruct((1, 8, 8, 3), jnp.float32))
    assert logits.shape == (1, 3)


@pytest.mark.parametrize("shortcut", ["A", "B", "C"])
@pytest.mark.parametrize("activation", ENDS_IN_NORM)
def test_zero_init_last_makes_each_unit_its_shortcut(activation, shortcut):
    """At initialisation a unit is its shortcut (and the ReLU of its order), in training and in testing."""
    model = net(stage_sizes=(2, 1), activation=activation, shortcut=shortcut, zero_init_last=True)
    x = ref.images(2, 8, 8, 3)
    variables = model.init(KEY, x)
    # Only the last scale of each residual starts at zero: the projection's batch norm is not part of it.
    scales = {k: v for k, v in traverse_util.flatten_dict(variables["params"], sep="/").items() if k.endswith("scale")}
    assert all((value == (0 if path.endswith("/bn2/scale") else 1)).all() for path, value in scales.items())

    for train in (False, True):
        w = ref.Weights(variables, train)
        _, state = model.apply(
            variables,
            x,
            train=train,
            mutable=["intermediates", "batch_stats"],
            capture_intermediates=lambda module, name: module.name in ("stem", "block1", "block2"),
        )
        outputs = {"/".join(k[:-1]): v[0] for k, v in traverse_util.flatten_dict(state["intermediates"]).items()}
        chain = ["stem", "stage1/block1", "stage1/block2", "stage2/block1"]
        for source, path in zip(chain, chain[1:], strict=False):
            strides, channels = (2, 8) if path == "stage2/block1" else (1, 4)
            y = np.asarray(outputs[source])
            # The first unit takes the stem's ReLU, later ones with pre-activation make their own.
            h = ref.relu(y) if activation == "relu_only_preactivation" and source != "stem" else y
            if shortcut == "C" or (shortcut == "B" and strides == 2):
                y = w.bn(f"{path}/shortcut/bn", w.conv(f"{path}/shortcut/conv", h, strides))
            else:
                y = ref.option_a(y, strides, channels)
            ref.assert_close(outputs[path], ref.relu(y) if activation == "original" else y, 2e-5)


@pytest.mark.parametrize("activation", ENDS_IN_NORM)
def test_zero_init_last_lets_residuals_train(activation):
    """A scale that starts at zero must have a gradient, or its residual stays dead for good."""
    model = net(stage_sizes=(1,), widths=(4,), activation=activation, zero_init_last=True)
    x = ref.images(4, 4, 4, 3)
    variables = ref.random_variables(model, x)
    last = variables["params"]["stage1"]["block1"]["bn2"]
    last["scale"], last["bias"] = np.zeros(4, np.float32), np.zeros(4, np.float32)

    def loss(params):
        logits, _ = model.apply(variables | {"params": params}, x, train=True, mutable=["batch_stats"])
        return jnp.sum(logits[:, 0] ** 2)

    gradient = jax.grad(loss)(variables["params"])["stage1"]["block1"]["bn2"]["scale"]
    assert np.abs(gradient).max() > 1e-3


def test_without_zero_init_last_every_scale_starts_at_one():
    """Off in paper configs."""
    params = net(stage_sizes=(1,), widths=(4,)).init(KEY, jnp.zeros((1, 4, 4, 3)))["params"]
    assert (np.asarray(params["stage1"]["block1"]["bn2"]["scale"]) == 1).all()


@pytest.mark.parametrize("activation", ORDERS)
@pytest.mark.parametrize(("stride_on", "sides"), [("1x1", (4, 4, 4)), ("3x3", (8, 4, 4))])
def test_stride_on_places_the_stride(stride_on, sides, activation):
    """In a bottleneck's first layer as in the paper, or in its 3x3; the first stage does not stride at all."""
    model = net(block="bottleneck", stride_on=stride_on, activation=activation)
    outputs = {layer.path: layer.output for layer in summarize(model, "", 8).layers}
    assert [outputs[f"stage2/block1/conv{i}"] for i in (1, 2, 3)] == [
        (side, side, features) for side, features in zip(sides, (8, 8, 32), strict=True)
    ]
    assert outputs["stage2/block1/shortcut/conv"] == (4, 4, 32)
    assert {outputs[f"stage1/block1/conv{i}"][0] for i in (1, 2, 3)} == {8}


@pytest.mark.parametrize("block", ["basic", "single"])
def test_other_blocks_stride_in_their_first_layer(block):
    outputs = {layer.path: layer.output for layer in summarize(net(block=block), "", 8).layers}
    assert outputs["stage2/block1/conv1"] == (4, 4, 8)


@pytest.mark.parametrize("shortcut", ["A", "C", "shortcut_only_gating"])
@pytest.mark.parametrize("activation", ["original", "full_preactivation"])
def test_bfloat16_computes_in_bfloat16_and_keeps_float32(activation, shortcut):
    """Parameters, statistics and logits are float32; in between it is bfloat16, near the float32 result.

    A gate's bias is added in float32, so that its gradient is.
    """
    x = ref.images(8, 8, 8, 3)
    half, full = (net(dtype=dtype, activation=activation, shortcut=shortcut) for dtype in (jnp.bfloat16, jnp.float32))
    assert {leaf.dtype for leaf in jax.tree.leaves(jax.eval_shape(half.init, KEY, x))} == {jnp.dtype("float32")}

    variables = ref.random_variables(full, x)
    logits, state = half.apply(
        variables, x, train=True, mutable=["batch_stats", "intermediates"], capture_intermediates=True
    )
    dtypes = {k[:-1]: v[0].dtype for k, v in traverse_util.flatten_dict(state["intermediates"]).items() if len(k) > 1}
    assert {dtype for path, dtype in dtypes.items() if path[-1] not in ("head", "gate")} == {jnp.dtype("bfloat16")}
    assert dtypes["head",] == logits.dtype == jnp.float32
    assert {leaf.dtype for leaf in jax.tree.leaves(state["batch_stats"])} == {jnp.dtype("float32")}

    # The average over positions is taken in float32: in bfloat16 it would lose digits.
    final = np.asarray(state["intermediates"]["final"]["__call__"][0], np.float64)
    ref.assert_close(logits, ref.Weights(variables).dense("head", final.mean(axis=(1, 2))))

    expected, changed = full.apply(variables, x, train=True, mutable=["batch_stats"])
    error = np.linalg.norm(np.asarray(logits) - expected) / np.linalg.norm(expected)
    assert 1e-5 < error < 0.02, "bfloat16 has 8 bits: other digits than float32, but not many of them"
    for a, b in zip(jax.tree.leaves(state["batch_stats"]), jax.tree.leaves(changed["batch_stats"]), strict=True):
        np.testing.assert_allclose(a, b, atol=0.02)


def test_the_first_unit_has_a_pre_activation_of_its_own_without_the_stems():
    with_, without = (
        net(activation="full_preactivation", stem_norm=stem_norm).init(KEY, jnp.zeros((1, 8, 8, 3)))["params"]
        for stem_norm in (True, False)
    )
    assert "bn" in with_["stem"] and "bn_before" not in with_["stage1"]["block1"]
    assert "bn" not in without["stem"] and "bn_before" in without["stage1"]["block1"]
    with pytest.raises(UserError, match="stem_norm=False is for pre-activation"):
        net(stem_norm=False)


def test_groups_and_width_per_group_are_torchvisions():
    """Of width 64: 32 groups of 4 features; twice as many where the width is twice as large."""
    model = net(block="bottleneck", widths=(64, 128), groups=32, width_per_group=4)
    shapes = jax.eval_shape(model.init, KEY, jnp.zeros((1, 8, 8, 3)))["params"]
    for stage, inner in (("stage1", 128), ("stage2", 256)):
        unit = shapes[stage]["block1"]
        assert unit["conv1"]["kernel"].shape[-1] == inner
        assert unit["conv2"]["kernel"].shape == (3, 3, inner // 32, inner)
        assert unit["conv3"]["kernel"].shape == (1, 1, inner, 2 * inner)


def test_dropout_in_the_unit_is_between_its_convolutions():
    """The second convolution's inputs vanish in training alone, and the others grow."""
    x = ref.images(4, 8, 8, 3)
    dropped, whole = net(unit_dropout=0.5), net()
    variables = ref.random_variables(whole, x)
    np.testing.assert_array_equal(dropped.apply(variables, x), whole.apply(variables, x))

    def inputs(model):
        found = {}

        def record(next_call, args, kwargs, context):
            found["/".join(context.module.path)] = args[0] if args else None
            return next_call(*args, **kwargs)

        with nn.intercept_methods(record):
            model.apply(variables, x, train=True, mutable=["batch_stats"], rngs={"dropout": KEY})
        return [np.asarray(found[f"stage1/block1/conv{i}"]) for i in (1, 2)]

    (first, second), (first_whole, second_whole) = inputs(dropped), inputs(whole)
    np.testing.assert_array_equal(first, first_whole)
    kept = second != 0
    np.testing.assert_allclose(second[kept], 2 * second_whole[kept], rtol=1e-6)
    assert 0.4 < kept.sum() / (second_whole != 0).sum() < 0.6


def test_the_stem_may_have_a_width_of_its_own():
    shapes = jax.eval_shape(net(stem_width=6).init, KEY, jnp.zeros((1, 8, 8, 3)))["params"]
    assert shapes["stem"]["conv"]["kernel"].shape[-1] == 6
    assert shapes["stage1"]["block1"]["shortcut"]["conv"]["kernel"].shape == (1, 1, 6, 4)
