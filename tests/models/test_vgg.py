"""VGG-16 and VGG-19 against configurations D and E of Simonyan and Zisserman 2014, table 1, and against NumPy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import traverse_util

from resnet_jax.errors import UserError
from resnet_jax.models import VGG, create_model
from resnet_jax.models.summary import summarize
from tests.models import reference as ref

# Features of each 3x3 convolution, and the max-pools between them.
D = "64 64 M 128 128 M 256 256 256 M 512 512 512 M 512 512 512 M"
E = "64 64 M 128 128 M 256 256 256 256 M 512 512 512 512 M 512 512 512 512 M"


@pytest.mark.parametrize(("name", "configuration"), [("vgg16", D), ("vgg19", E)])
def test_layers_are_those_of_the_configuration(name, configuration):
    side, features, stage, conv, expected = 224, 3, 1, 0, []
    for entry in configuration.split():
        if entry == "M":
            side, stage, conv = side // 2, stage + 1, 0
            continue
        conv, width = conv + 1, int(entry)
        expected.append((f"stage{stage}/conv{conv}", (side, side, width), 9 * features * width + width))
        features = width
    for path, inputs, outputs in (("fc1", 7 * 7 * 512, 4096), ("fc2", 4096, 4096), ("head", 4096, 1000)):
        expected.append((path, (outputs,), inputs * outputs + outputs))
    layers = summarize(create_model(name), name, 224).layers
    assert [(layer.path, layer.output, layer.params) for layer in layers] == expected


@pytest.mark.parametrize(("sides", "features"), [((224, 224), 25088), ((32, 32), 512), ((64, 96), 3072)])
def test_first_dense_layer_is_as_large_as_the_last_feature_map(sides, features):
    model = create_model("vgg16")
    images = jax.ShapeDtypeStruct((2, *sides, 3), jnp.float32)
    logits, variables = jax.eval_shape(model.init_with_output, jax.random.key(0), images)
    assert logits.shape == (2, 1000)
    assert variables["params"]["fc1"]["kernel"].shape == (features, 4096)


def small():
    return VGG(stage_sizes=(1, 2), widths=(4, 6), hidden=64, num_classes=5)


def test_forward_is_that_of_numpy():
    """3x3 convolutions with bias and ReLU, 2x2 max-pools, three dense layers with ReLU between."""
    net, x = small(), ref.images(2, 8, 12, 3)
    variables = ref.random_variables(net, x)
    w = ref.Weights(variables)
    y = ref.max_pool(ref.relu(w.conv("stage1/conv1", x)), 2, 2, 0)
    y = ref.relu(w.conv("stage2/conv1", y))
    y = ref.max_pool(ref.relu(w.conv("stage2/conv2", y)), 2, 2, 0)
    y = y.reshape(2, -1)
    y = ref.relu(w.dense("fc2", ref.relu(w.dense("fc1", y))))
    ref.assert_close(net.apply(variables, x), w.dense("head", y))
    w.assert_all_used()
    assert set(variables) == {"params"}, "VGG has no batch norm"


def test_dropout_only_in_training_and_only_after_hidden_layers():
    """A half of each hidden layer vanishes, the rest doubles: the expectation stays (Srivastava et al. 2014)."""
    net, x = small(), ref.images(32, 8, 8, 3)
    variables = ref.random_variables(net, x)

    def dropped(train):
        rngs = {"dropout": jax.random.key(0)} if train else {}
        _, state = net.apply(
            variables, x, train=train, rngs=rngs, mutable=["intermediates"], capture_intermediates=True
        )
        flat = traverse_util.flatten_dict(state["intermediates"])
        return {path[0]: np.asarray(v[0]) for path, v in flat.items() if path[-1] == "__call__" and len(path) == 2}

    tested, trained = dropped(False), dropped(True)
    np.testing.assert_array_equal(tested["fc1"], trained["fc1"])  # nothing is dropped before
    kept = ref.relu(trained["fc1"])
    first = trained["Dropout_0"]
    alive = kept > 1e-3
    share = (first[alive] == 0).mean()
    assert share == pytest.approx(0.5, abs=5 * 0.5 / np.sqrt(alive.sum()))
    np.testing.assert_allclose(first[first != 0], 2 * kept[first != 0], rtol=1e-5)
    np.testing.assert_allclose(tested["Dropout_0"], kept, rtol=1e-6)
    assert (trained["Dropout_1"] == 0).mean() > (tested["Dropout_1"] == 0).mean() + 0.15
    assert "Dropout_2" not in trained


def test_training_without_dropout_needs_no_key():
    net, x = VGG((1,), (4,), num_classes=3, hidden=8, dropout=0.0), ref.images(2, 4, 4, 3)
    variables = ref.random_variables(net, x)
    np.testing.assert_array_equal(net.apply(variables, x, train=True), net.apply(variables, x))


@pytest.mark.parametrize("mode", ["fan_in", "fan_out"])
def test_initialisation_is_he_with_zero_biases(mode):
    """Variance 2 / fan within five deviations; the dense layers go by their inputs."""
    net = VGG((1, 1), (32, 64), num_classes=50, hidden=64, init_mode=mode)
    params = net.init(jax.random.key(0), jnp.zeros((1, 8, 8, 3)))["params"]
    for path, value in traverse_util.flatten_dict(params, sep="/").items():
        if path.endswith("bias"):
            assert not value.any()
            continue
        by_outputs = mode == "fan_out" and value.ndim == 4
        fan = np.prod(value.shape[:-2]) * value.shape[-1 if by_outputs else -2]
        assert np.var(value) / (2 / fan) == pytest.approx(1, abs=5 * np.sqrt(2 / value.size)), path


def test_bfloat16_keeps_parameters_and_logits_in_float32():
    net, x = VGG((1, 1), (4, 6), num_classes=5, hidden=8, dtype=jnp.bfloat16), ref.images(4, 8, 8, 3)
    shapes = jax.eval_shape(net.init, jax.random.key(0), x)
    assert {leaf.dtype for leaf in jax.tree.leaves(shapes)} == {jnp.dtype("float32")}
    variables = ref.random_variables(net, x)
    logits = net.apply(variables, x)
    full = net.clone(dtype=jnp.float32).apply(variables, x)
    assert logits.dtype == jnp.float32
    assert 1e-5 < np.linalg.norm(logits - full) / np.linalg.norm(full) < 0.02


@pytest.mark.parametrize("sides", [(31, 32), (32, 31), (8, 8)])
def test_image_too_small_for_five_halvings_is_a_user_error(sides):
    images = jax.ShapeDtypeStruct((1, *sides, 3), jnp.float32)
    with pytest.raises(UserError, match=rf"images of {sides[0]}x{sides[1]} are too small for VGG: 32 pixels at least"):
        jax.eval_shape(create_model("vgg16").init, jax.random.key(0), images)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"stage_sizes": (1, 1), "widths": (4,)}, r"stage_sizes \(1, 1\) and widths \(4,\) need one entry"),
        ({"stage_sizes": (), "widths": ()}, "need one entry for each stage"),
        ({"stage_sizes": (1, 0), "widths": (4, 4)}, "stage_sizes, widths and hidden must be 1 or more"),
        ({"stage_sizes": (1,), "widths": (4,), "hidden": 0}, "hidden must be 1 or more"),
        ({"stage_sizes": (1,), "widths": (4,), "num_classes": -1}, "num_classes 1 or more, or 0"),
        ({"stage_sizes": (1,), "widths": (4,), "dropout": 1.0}, r"dropout=1.0 must be in \[0, 1\)"),
        ({"stage_sizes": (1,), "widths": (4,), "dropout": -0.5}, r"dropout=-0.5 must be in"),
    ],
)
def test_senseless_fields_are_refused(fields, message):
    with pytest.raises(UserError, match=message):
        VGG(**fields)
