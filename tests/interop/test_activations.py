"""Converted nets compute what the other projects' own code computes, stage by stage.

Recorded once from those libraries (record_fixtures.py), on weights that both sides draw from the tensors' names and
shapes; and live where PyTorch is installed. The tolerance is 1e-4 of a feature map's deviation: float32 sums in another
order differ by 1e-6 to 2e-5 of it after 50 layers, and a stride in the wrong layer, other padding or an exchanged batch
norm by 0.1 and more.
"""

import json
from pathlib import Path

import numpy as np
import pytest

from resnet_jax.interop.convert import convert
from resnet_jax.interop.files import read_tensors
from resnet_jax.models.features import forward_with_features
from tests.interop import made
from tests.interop.files_made import file_of, shapes_of

FIXTURE = json.loads((Path(__file__).parent / "fixtures" / "activations.json").read_text())
REFERENCE = Path(__file__).parents[2] / ".." / "shared" / "data" / "reference_weights"
TOLERANCE = 1e-4

V15, V2 = {"stride_on": "3x3"}, {"stem_norm": False}
CASES = {
    "torchvision_resnet18": ("torchvision", "resnet18", {}),
    "torchvision_resnet34": ("torchvision", "resnet34", {}),
    "torchvision_resnet50": ("torchvision", "resnet50", V15),
    "timm_resnet50": ("torchvision", "resnet50", V15),
    "timm_resnetv2_18": ("timm_resnetv2", "preact_resnet18", V2),
    "timm_resnetv2_50": ("timm_resnetv2", "preact_resnet50", V15 | V2),
    "transformers_basic": ("transformers", "resnet18", {}),
    "transformers_bottleneck": ("transformers", "resnet50", V15),
    "cifar_akamaster": ("akamaster", "cifar_resnet20", {}),
    "cifar_end": ("akamaster", "cifar_resnet20", {"shortcut_zeros": "end"}),
    "cifar_downsample": ("torchvision", "cifar_resnet20", {"shortcut": "B"}),
    "cifar_shortcut": ("akamaster", "cifar_resnet20", {"shortcut": "B"}),
    "cifar_fc_shortcut": ("fc_shortcut", "cifar_resnet20", {"shortcut": "B"}),
}


def computed(name: str, tensors: dict[str, np.ndarray], images: np.ndarray) -> dict[str, np.ndarray]:
    """Stages and logits of the converted net, which nothing but its names and shapes chooses."""
    layout, model, fields = CASES[name]
    given = {"shortcut_zeros": "end"} if name == "cifar_end" else {}
    converted = convert(file_of(tensors), fields=given)
    weights = converted.weights
    assert (converted.structure.layout.name, weights.model) == (layout, model)
    assert weights.fields == {**fields, "num_classes": weights.num_classes}
    wanted = ("stem", "stage1", "stage2", "stage3", "stage4")
    logits, features = forward_with_features(weights.create_model(), weights.variables, images, wanted.__contains__)
    return {"logits": np.asarray(logits)} | {key: np.asarray(value) for key, value in features.items()}


def test_every_recorded_net_has_a_case():
    assert CASES.keys() == FIXTURE["nets"].keys()


@pytest.mark.parametrize("name", CASES)
def test_stages_are_the_recorded_ones(name):
    recorded = FIXTURE["nets"][name]
    shapes = shapes_of(CASES[name][0], CASES[name][1], **CASES[name][2])
    assert made.names_hash(shapes) == recorded["names"]  # the very names and shapes that the library has
    found = computed(name, made.state_dict(shapes), made.images(recorded["size"]))
    far = {key: made.differences(found[key], recorded[key]) for key in recorded if key not in ("names", "size")}
    assert len(far) >= 4 and max(far.values()) < TOLERANCE, far


@pytest.mark.parametrize("name", ["torchvision_resnet18", "timm_resnetv2_18", "cifar_downsample"])
def test_stages_are_those_of_the_library_that_is_here(name):
    for library in ("torch", name.partition("_")[0].replace("cifar", "torch")):
        pytest.importorskip(library, reason=f"{library} is not installed; the recorded activations stand for it")
    from tests.interop import torch_nets

    make, modules, size = torch_nets.NETS[name]
    net = make()
    tensors, images = torch_nets.filled(net), made.images(size)
    theirs, ours = torch_nets.features(net, modules, images), computed(name, tensors, images)
    far = {key: np.abs(ours[key] - value).max() / value.std() for key, value in theirs.items()}
    assert max(far.values()) < TOLERANCE, far


@pytest.mark.skipif(not REFERENCE.is_dir(), reason="the CIFAR reference weights are not here (../shared)")
@pytest.mark.parametrize("file", FIXTURE["reference"])
def test_the_reference_weights_give_pytorchs_logits(file):
    weights = convert(read_tensors(REFERENCE / file)).weights
    images = (made.picture_bytes().astype(np.float32) / 255 - weights.mean) / weights.std
    logits = np.asarray(weights.create_model().apply(weights.variables, images))
    recorded = np.array(FIXTURE["reference"][file])
    assert np.abs(recorded).max() > 5  # not all alike
    np.testing.assert_allclose(logits, recorded, atol=1e-4)
