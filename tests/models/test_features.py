"""Named features of a forward pass: paths, values and shapes."""

import jax
import numpy as np
import pytest
from flax import traverse_util

from resnet_jax.models import VGG, ResNet, forward_with_features
from tests.models import reference as ref


def make(**fields):
    """A small net, with variables that make every layer matter, and images."""
    net = ResNet(
        **{"stage_sizes": (2, 1), "widths": (4, 6), "stem": "cifar", "num_classes": 5, "shortcut": "B"} | fields
    )
    x = ref.images(2, 8, 8, 3)
    return net, ref.random_variables(net, x), x


def test_logits_are_those_of_apply():
    net, variables, x = make()
    logits, features = forward_with_features(net, variables, x)
    np.testing.assert_array_equal(logits, net.apply(variables, x))
    np.testing.assert_array_equal(logits, features["head"])


@pytest.mark.parametrize("activation", ["original", "full_preactivation"])
@pytest.mark.parametrize("shortcut", ["A", "B", "exclusive_gating"])
def test_every_layer_with_parameters_is_there_under_their_path(activation, shortcut):
    net, variables, x = make(activation=activation, shortcut=shortcut)
    features = forward_with_features(net, variables, x)[1]
    modules = {path.rsplit("/", 1)[0] for path in traverse_util.flatten_dict(variables["params"], sep="/")}
    containers = {"stem", "final", "head", "stage1", "stage2", "stage1/block1", "stage1/block2", "stage2/block1"}
    joins = {f"{path}/shortcut" for path in ("stage1/block1", "stage1/block2", "stage2/block1")}
    assert set(features) == modules | containers | joins


def test_values_are_those_of_numpy():
    """`bn1` is the response before the nonlinearity, as figure 7 of the 2015 paper measures it."""
    net, variables, x = make()
    features = forward_with_features(net, variables, x)[1]
    w = ref.Weights(variables)
    stem = ref.relu(w.bn("stem/bn", w.conv("stem/conv", x)))
    conv1 = w.conv("stage1/block1/conv1", stem)
    bn1 = w.bn("stage1/block1/bn1", conv1)
    bn2 = w.bn("stage1/block1/bn2", w.conv("stage1/block1/conv2", ref.relu(bn1)))
    expected = {
        "stem": stem,
        "stage1/block1/conv1": conv1,
        "stage1/block1/bn1": bn1,
        "stage1/block1/bn2": bn2,
        "stage1/block1/shortcut": stem + bn2,
        "stage1/block1": ref.relu(stem + bn2),
    }
    for path, value in expected.items():
        ref.assert_close(features[path], value)
    assert bn1.min() < -0.1, "a response after the ReLU would have no negative values"


@pytest.mark.parametrize("shortcut", ["none", "A", "B", "C", "constant_scaling", "exclusive_gating", "dropout"])
def test_shortcut_is_the_joined_signal(shortcut):
    """Also where the shortcut computes it in several methods, each of which Flax captures: ReLU makes it the unit."""
    net, variables, x = make(shortcut=shortcut)
    features = forward_with_features(net, variables, x)[1]
    for path in ("stage1/block1", "stage1/block2", "stage2/block1"):
        ref.assert_close(ref.relu(np.asarray(features[f"{path}/shortcut"])), features[path])


def test_a_stage_is_its_last_unit_and_the_head_takes_the_final_features():
    net, variables, x = make(activation="full_preactivation")
    features = forward_with_features(net, variables, x)[1]
    np.testing.assert_array_equal(features["stage1"], features["stage1/block2"])
    np.testing.assert_array_equal(features["final"], np.maximum(features["final/bn"], 0))
    w = ref.Weights(variables)
    ref.assert_close(features["head"], w.dense("head", np.float64(features["final"]).mean(axis=(1, 2))))


def test_select_keeps_only_what_it_names():
    net, variables, x = make()
    logits, features = forward_with_features(net, variables, x, select=lambda path: path.endswith("/bn1"))
    assert set(features) == {"stage1/block1/bn1", "stage1/block2/bn1", "stage2/block1/bn1"}
    everything = forward_with_features(net, variables, x)
    np.testing.assert_array_equal(logits, everything[0])
    for path, value in features.items():
        np.testing.assert_array_equal(value, everything[1][path])


def test_select_of_nothing_gives_logits_alone():
    net, variables, x = make()
    logits, features = forward_with_features(net, variables, x, select=lambda path: False)
    assert features == {}
    np.testing.assert_array_equal(logits, net.apply(variables, x))


def test_testing_mode_leaves_statistics_and_needs_no_key():
    """Running statistics are used, not changed; dropout scales."""
    net, variables, x = make(shortcut="dropout")
    before = jax.tree.map(np.copy, variables)
    one, both = (forward_with_features(net, variables, images)[0] for images in (x[:1], x))
    ref.assert_close(one, both[:1])
    jax.tree.map(np.testing.assert_array_equal, before, variables)


def test_works_under_jit():
    """Where features are needed for whole data sets. Jit sorts dictionaries: nothing may hang on their order."""
    net, variables, x = make(shortcut="exclusive_gating")
    jitted = jax.jit(lambda v, images: forward_with_features(net, v, images))(variables, x)
    plain = forward_with_features(net, variables, x)
    assert jitted[1].keys() == plain[1].keys()
    for path, value in plain[1].items():
        ref.assert_close(jitted[1][path], value)


@pytest.mark.parametrize(("stem", "sides"), [("imagenet", (16, 8, 4, 2)), ("cifar", (64, 32, 16, 8))])
@pytest.mark.parametrize(("block", "multiple"), [("basic", 1), ("bottleneck", 4)])
def test_stage_outputs_have_the_shapes_of_table_1(stem, sides, block, multiple):
    """At 64 pixels: the ImageNet stem takes a fourth of the side, each later stage a half."""
    widths = (4, 8, 16, 32)
    net = ResNet((1, 1, 1, 1), widths, block=block, stem=stem, num_classes=5)
    images = jax.ShapeDtypeStruct((2, 64, 64, 3), np.float32)

    def run(key, x):
        return forward_with_features(net, net.init(key, x), x)

    logits, features = jax.eval_shape(run, jax.random.key(0), images)
    assert logits.shape == (2, 5)
    assert features["stem"].shape == (2, sides[0], sides[0], 4)
    for stage, (side, width) in enumerate(zip(sides, widths, strict=True), start=1):
        assert features[f"stage{stage}"].shape == (2, side, side, width * multiple)


def test_vgg_too():
    net = VGG(stage_sizes=(1, 2), widths=(4, 6), hidden=7, num_classes=5)
    x = ref.images(2, 8, 8, 3)
    variables = ref.random_variables(net, x)
    logits, features = forward_with_features(net, variables, x)
    np.testing.assert_array_equal(logits, net.apply(variables, x))
    assert features["stage1/conv1"].shape == (2, 8, 8, 4)
    assert features["stage2/conv2"].shape == (2, 4, 4, 6)
    assert features["stage2"].shape == (2, 2, 2, 6)
    assert features["fc2"].shape == (2, 7)
    assert np.asarray(features["fc1"]).min() < 0, "the response before the nonlinearity"
