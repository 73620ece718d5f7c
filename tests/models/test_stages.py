"""Stages' outputs for detection and segmentation: shapes, dilation, and torchvision's ResNet-50."""

import json

import jax
import numpy as np
import pytest
from flax import traverse_util

from resnet_jax.errors import UserError
from resnet_jax.models import ResNet, create_model, feature_info, forward_with_embeddings, forward_with_features
from resnet_jax.models.summary import summarize
from tests.models import reference as ref
from tests.models import torchvision_stages

NETS = {
    "basic": {},
    "bottleneck": {"block": "bottleneck"},
    "bottleneck v1.5": {"block": "bottleneck", "stride_on": "3x3"},
    "single": {"block": "single"},
    "pre-activation": {"block": "bottleneck", "activation": "full_preactivation", "shortcut": "B"},
    "relu only": {"activation": "relu_only_preactivation"},
    "plain": {"shortcut": "none"},
    "option A": {"shortcut": "A"},
    "gates": {"shortcut": "exclusive_gating"},
    # A stage that strides projects, though its channels are those ahead of it.
    "same padding": {"block": "bottleneck", "padding": "same"},  # whose 1x1 convolutions stride
    "even widths": {"widths": (4, 4, 4), "shortcut": "B"},
}


def make(stem="cifar", **fields):
    return ResNet(**{"stage_sizes": (1, 2, 2), "widths": (4, 6, 8), "stem": stem, "num_classes": 5} | fields)


@pytest.mark.parametrize(("name", "strides", "channels"), [
    ("resnet50", (4, 8, 16, 32), (256, 512, 1024, 2048)), ("cifar_resnet20", (1, 2, 4), (16, 32, 64)),
])  # fmt: skip
def test_description_is_what_comes_out(name, strides, channels):
    for output_stride in (None, strides[-3]):
        model = create_model(name, features_only=True, output_stride=output_stride)
        images = jax.ShapeDtypeStruct((2, 64, 64, 3), np.float32)
        outputs = jax.eval_shape(lambda key, x, m=model: m.init_with_output(key, x)[0], jax.random.key(0), images)
        info = feature_info(model)
        expected = [min(stride, output_stride or stride) for stride in strides]
        assert [one.stride for one in info] == expected and tuple(one.channels for one in info) == channels
        assert [one.dilation for one in info] == [a // b for a, b in zip(strides, expected, strict=True)]
        assert [o.shape for o in outputs] == [(2, 64 // s, 64 // s, c) for s, c in zip(expected, channels, strict=True)]
    assert [one.name for one in info] == ["C2", "C3", "C4", "C5"][: len(info)]


@pytest.mark.parametrize("activation", ["original", "full_preactivation"])
def test_outputs_are_the_named_features_of_the_whole_net(activation):
    """Its variables load as they are, the last output is what the classifier averages, and the others are stages'."""
    whole, x = make(activation=activation), ref.images(2, 16, 16, 3)
    variables = ref.random_variables(whole, x)
    part = whole.clone(features_only=True)
    names = traverse_util.flatten_dict(jax.eval_shape(part.init, jax.random.key(0), x), sep="/")
    assert set(traverse_util.flatten_dict(variables, sep="/")) - set(names) == {
        "params/head/kernel",
        "params/head/bias",
    }
    features = forward_with_features(whole, variables, x)[1]
    for output, path in zip(part.apply(variables, x), ("stage1", "stage2", "final"), strict=True):
        np.testing.assert_array_equal(output, features[path])


@pytest.mark.parametrize(
    ("net", "output_stride", "side"), [*((net, 1, 13) for net in NETS), ("bottleneck", 2, 16), ("basic", 2, 13)]
)
def test_dilated_values_are_those_of_the_strided_net(net, output_stride, side):
    """The reason to dilate: at every position that the strided net has, borders too, the values are the same.

    A kernel that is dilated too early or too late, or a shortcut that strides on, fails this at once.
    """
    model, x = make(**NETS[net], features_only=True), ref.images(1, side, side, 3)
    variables = ref.random_variables(model, x)
    strided = model.apply(variables, x)
    dilated = model.clone(output_stride=output_stride).apply(variables, x)
    for i, (coarse, fine) in enumerate(zip(strided, dilated, strict=True)):
        step = max(1, 2**i // output_stride)
        ref.assert_close(fine[:, ::step, ::step], np.asarray(coarse), 2e-6)
        assert fine.shape[1] == -(-side // min(2**i, output_stride))


def check_against_torchvision(output_stride, expected):
    """`expected`: (shape, sampled values) of each stage."""
    model = create_model("resnet50", stride_on="3x3", features_only=True, output_stride=output_stride)
    x = torchvision_stages.images()
    shapes = traverse_util.flatten_dict(jax.eval_shape(model.init, jax.random.key(0), x), sep="/")
    flat = {name: torchvision_stages.random(name.partition("/")[2], s.shape) for name, s in shapes.items()}
    outputs = model.apply(traverse_util.unflatten_dict(flat, sep="/"), x)
    for i, (output, (shape, values)) in enumerate(zip(outputs, expected, strict=True)):
        assert list(output.shape) == list(shape)
        ref.assert_close(torchvision_stages.sample(i, output), values, 2e-5)


@pytest.mark.parametrize("output_stride", [8])
def test_recorded_activations_of_torchvision(output_stride):
    recorded = json.loads(torchvision_stages.FIXTURE.read_text())["outputs"][str(output_stride)]
    check_against_torchvision(output_stride, [(one["shape"], np.array(one["values"])) for one in recorded])


@pytest.mark.parametrize("output_stride", [32, 16])
def test_torchvision_itself(output_stride):
    pytest.importorskip("torchvision", reason="torchvision is not installed; recorded activations are compared instead")
    outputs = torchvision_stages.torch_outputs(output_stride)
    check_against_torchvision(
        output_stride, [(o.shape, torchvision_stages.sample(i, o)) for i, o in enumerate(outputs)]
    )


@pytest.mark.parametrize(("name", "fields", "message"), [
    ("resnet50", {"output_stride": 7}, r"output_stride=7 is none of this net's: 4, 8, 16, 32"),
    ("resnet50", {"output_stride": 64}, r"output_stride=64 is none"),
    ("cifar_resnet20", {"output_stride": 8}, r"output_stride=8 is none of this net's: 1, 2, 4"),
    ("resnet18", {"output_stride": 16, "padding": "same"}, r"16 is not for padding='same', .* 3x3 kernels"),
    ("resnet50", {"output_stride": 16, "padding": "same", "stride_on": "3x3"}, r"output_stride=16 is not for .*'same'"),
    ("vgg16", {"features_only": True}, r"vgg16 has no field 'features_only'"),
])  # fmt: skip
def test_nonsense_is_refused(name, fields, message):
    with pytest.raises(UserError, match=message):
        create_model(name, **fields)


def test_vgg_has_no_stages_to_describe():
    with pytest.raises(UserError, match="VGG has no residual stages"):
        feature_info(create_model("vgg16"))


def test_a_count_of_the_net_is_not_changed():
    """Without the fields nothing changes; with them only the head is gone."""
    whole, part = (summarize(create_model("cifar_resnet20", **f), "", 32) for f in ({}, {"features_only": True}))
    assert part.layers == whole.layers[:-1]


@pytest.mark.parametrize("net", ["cifar_resnet20", "vgg16"])
def test_embeddings_are_what_the_head_takes(net):
    fields = {"stage_sizes": (1, 1), "widths": (4, 6), "num_classes": 3} | ({"hidden": 7} if net == "vgg16" else {})
    model, x = create_model(net, **fields), ref.images(2, 8, 8, 3)
    variables = ref.random_variables(model, x)
    logits, vectors = forward_with_embeddings(model, variables, x)
    features = forward_with_features(model, variables, x)[1]
    expected = ref.relu(features["fc2"]) if net == "vgg16" else np.asarray(features["final"]).mean(axis=(1, 2))
    ref.assert_close(vectors, expected)
    ref.assert_close(ref.Weights(variables).dense("head", np.float64(expected)), logits)
