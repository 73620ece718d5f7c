"""torchvision's nets that segment, converted: the same logits of both heads, on weights that both sides draw by name.

Recorded by segmentation_nets.py. The tolerance is that of test_activations.py, in deviations of a map of logits.
"""

import json

import jax
import numpy as np
import pytest

from resnet_jax.interop.convert import convert
from resnet_jax.interop.export import export_safetensors, natural_layout, state_dict
from resnet_jax.interop.weights import Weights
from resnet_jax.models.features import forward_with_features
from resnet_jax.models.registry import create_model
from resnet_jax.training.load_weights import import_weights
from tests.interop import made
from tests.interop.files_made import file_of
from tests.interop.segmentation_nets import FIXTURE, NETS, SIZE

RECORDED = json.loads(FIXTURE.read_text())
TOLERANCE = 1e-4


@pytest.mark.parametrize("name", NETS)
def test_logits_are_torchvisions(name):
    recorded = RECORDED[name]
    tensors = made.state_dict({key: tuple(shape) for key, shape in recorded["shapes"].items()})
    converted = convert(file_of(tensors))
    weights = converted.weights
    assert (weights.model, dict(weights.fields)) == (name, {"num_classes": 21})
    logits, _ = forward_with_features(weights.create_model(), weights.variables, made.images(SIZE), lambda name: False)
    assert made.differences(np.asarray(logits), recorded["out"]) < TOLERANCE

    # And back: all of the names that torchvision's `load_state_dict` wants.
    again = state_dict(weights, natural_layout(weights))
    assert {key: list(value.shape) for key, value in again.items()} == recorded["shapes"]
    assert all(np.array_equal(again[key], tensors[key]) for key in again)


def test_the_auxiliary_head_is_torchvisions():
    """It is there in training alone, so its weights take the main head's place here, behind a net of three stages."""
    recorded = RECORDED["fcn_resnet50"]
    tensors = made.state_dict({key: tuple(shape) for key, shape in recorded["shapes"].items()})
    weights = convert(file_of(tensors)).weights
    net = weights.create_model(head="fcn", aux_head=False, stage_sizes=(3, 4, 6), widths=(64, 128, 256))
    parts = {"decoder": "aux", "head": "aux_head"}
    variables = {
        kind: {part: values[parts.get(part, part)] for part in (*values, *parts) if parts.get(part, part) in values
               and part not in ("stage4", "aux", "aux_head")}
        for kind, values in weights.variables.items()
    }  # fmt: skip
    logits, _ = forward_with_features(net, variables, made.images(SIZE), lambda name: False)
    assert made.differences(np.asarray(logits), recorded["aux"]) < TOLERANCE


def test_a_net_without_its_auxiliary_head_is_told_by_its_names():
    shapes = {k: tuple(s) for k, s in RECORDED["fcn_resnet50"]["shapes"].items() if not k.startswith("aux")}
    weights = convert(file_of(made.state_dict(shapes))).weights
    assert weights.fields == {"aux_head": False, "num_classes": 21}


@pytest.mark.parametrize("head", ["fcn", "deeplabv3"])
def test_a_net_of_ones_own_goes_out_and_comes_back(tmp_path, head):
    """As a file: with CIFAR's stem, two stages and a narrow head. 21 classes are taken for PASCAL VOC's."""
    fields = {"head": head, "head_width": 4, "aux_head": True, "num_classes": 21,
              "stage_sizes": (1, 2), "widths": (8, 16), "shortcut": "B"}  # fmt: skip
    net = create_model("cifar_resnet20", **fields)
    shapes = jax.eval_shape(lambda: net.init(jax.random.key(0), np.zeros((1, 32, 32, 3), np.float32)))
    rng = np.random.default_rng(0)
    variables = jax.tree.map(lambda shape: rng.uniform(0.5, 1, shape.shape).astype(np.float32), shapes)
    weights = Weights("cifar_resnet20", fields, variables, 32, np.full(3, 0.4, np.float32), np.ones(3, np.float32))
    export_safetensors(weights, tmp_path / "net.safetensors")
    again = import_weights(tmp_path / "net.safetensors", fields={})
    same = jax.tree.map(np.array_equal, again.weights.variables, variables)
    assert all(jax.tree.leaves(same)) and again.structure.layout.name == f"torchvision_{head}"
    assert again.weights.classes[:2] == ("background", "aeroplane")
