"""torchvision's VGG nets, converted: the same logits, on weights that both sides draw by name.

Recorded by vgg_nets.py from torchvision's own code, in narrow widths: the first fully connected layer takes 7x7
positions flattened with their channels first there and last here, which nothing but equal logits can show to be right.
"""

import json

import numpy as np
import pytest

from resnet_jax.errors import UserError
from resnet_jax.interop.convert import convert, expected_tensors, variable_shapes
from resnet_jax.interop.export import export_safetensors, natural_layout, state_dict
from resnet_jax.models import create_model
from resnet_jax.training.load_weights import load_weights
from tests.interop import files_made, made
from tests.interop.files_made import file_of
from tests.interop.vgg_nets import CLASSES, FIXTURE, HIDDEN, SIZE

RECORDED = json.loads(FIXTURE.read_text())


def tensors_of(name):
    return made.state_dict({key: tuple(shape) for key, shape in RECORDED[name]["shapes"].items()})


@pytest.mark.parametrize("name", ["vgg16", "vgg19"])
def test_logits_are_torchvisions(name, tmp_path):
    tensors = tensors_of(name)
    converted = convert(file_of({f"module.{key}": value for key, value in tensors.items()}))
    weights = converted.weights
    fields = {"num_classes": CLASSES, "hidden": HIDDEN, "widths": (4, 6, 8, 9, 9)}
    assert (weights.model, dict(weights.fields), weights.image_size) == (name, fields, SIZE)
    logits = np.asarray(weights.create_model().apply(weights.variables, made.images(SIZE)))
    np.testing.assert_allclose(logits, RECORDED[name]["logits"], atol=1e-4 * np.std(RECORDED[name]["logits"]))

    # And back, with all of the names that torchvision's `load_state_dict` wants; and as a file.
    again = state_dict(weights, natural_layout(weights))
    assert again.keys() == tensors.keys() and all(np.array_equal(again[key], tensors[key]) for key in again)
    export_safetensors(weights, tmp_path / "x.safetensors")
    assert load_weights(tmp_path / "x.safetensors").fields == weights.fields


@pytest.mark.parametrize("name", ["vgg16", "vgg19"])
def test_published_names_and_shapes(name):
    """Of torchvision's whole net of 138 and 144 million parameters, by shapes alone."""
    net = create_model(name)
    shapes = variable_shapes(net, 3, SIZE)
    expected = dict(expected_tensors(files_made.BY_NAME[f"torchvision_{name}"], net, shapes).values())
    assert made.names_hash(expected) == RECORDED[name]["published"]


def test_the_classifier_may_be_another_one_or_none():
    tensors = tensors_of("vgg16")
    without = {key: value for key, value in tensors.items() if not key.startswith("classifier.6")}
    found = convert(file_of(without))
    assert found.weights.fields["num_classes"] == 0 and any("no classifier" in note for note in found.notes)
    assert found.weights.create_model().apply(found.weights.variables, made.images(SIZE)).shape == (2, HIDDEN)
    other = without | {"classifier.6.weight": np.zeros((3, HIDDEN), np.float32)}
    found = convert(file_of(other))
    assert found.weights.num_classes == 3 and any("has no bias" in note for note in found.notes)


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("vgg16_bn", {}, "a VGG with batch norm"),
        ("vgg11", {}, "a VGG of other layers than VGG-16 and VGG-19"),
        ("vgg16", {"classifier.0.weight": (HIDDEN, 9 * 48)}, "fc1 takes 432 numbers, and no square map"),
        ("vgg16", {"classifier.0.weight": None}, "there is no fc1"),
        ("vgg16", {"features.5.bias": None}, "1 missing: features.5.bias$"),
        ("vgg16", {"features.5.weight": (6, 4, 5, 5)}, r"features.5.weight \(6, 4, 5, 5\) instead of \(6, 4, 3, 3\)"),
        ("vgg16", {"features.40.weight": (6, 6, 3, 3)}, "1 too many: features.40.weight"),
    ],
)
def test_other_nets_are_refused(name, change, message):
    tensors = tensors_of(name)
    for key, shape in change.items():
        tensors.pop(key, None)
        if shape:
            tensors[key] = np.zeros(shape, np.float32)
    with pytest.raises(UserError, match=message):
        convert(file_of(tensors))


def test_a_name_that_does_not_fit():
    with pytest.raises(
        UserError, match=r"no vgg19: .* it is vgg16 \(widths 4-6-8-9-9, 10 hidden features\); give --mo"
    ):
        convert(file_of(tensors_of("vgg16")), "vgg19")
    weights = convert(file_of(tensors_of("vgg16"))).weights
    with pytest.raises(UserError, match="vgg19 has no net of 2-2-3-3-3 convolutions"):
        state_dict(weights, "torchvision_vgg19")
    with pytest.raises(UserError, match="no net"):
        state_dict(weights, "torchvision")
    with pytest.raises(UserError, match="no field 'stride_on'"):
        convert(file_of(tensors_of("vgg16")), fields={"stride_on": "1x1"})
