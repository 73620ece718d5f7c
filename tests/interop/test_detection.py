"""torchvision's Faster R-CNN on a pyramid, converted: the same boxes, on weights that both sides draw by name.

Recorded by detection_nets.py in double precision.
"""

import json

import jax
import numpy as np
from safetensors.numpy import save_file

from resnet_jax.data.detection.coco_names import CLASSES
from resnet_jax.evaluation.predict_boxes import BoxPredictor
from resnet_jax.interop.convert import convert
from resnet_jax.interop.export import export_safetensors, natural_layout, state_dict
from resnet_jax.interop.weights import Weights, read_weights, save_weights
from resnet_jax.models.registry import create_model
from resnet_jax.training.load_weights import import_weights
from tests.interop import detection_nets, made
from tests.interop.files_made import file_of

RECORDED = json.loads(detection_nets.FIXTURE.read_text())
SHAPES = {key: tuple(shape) for key, shape in RECORDED["shapes"].items()}


def assert_same(found, recorded):
    """Each recorded detection is found, with its class, score and box; equal scores may change places.

    Nothing else is: a box that NMS should have dropped would push the scores behind it down by a place.
    """
    boxes, scores, labels = (np.asarray(values) for values in found)
    for box, score, label in zip(recorded["boxes"], recorded["scores"], recorded["labels"], strict=True):
        off = np.abs(boxes - box).max(axis=1) + 1000 * (labels != label - 1)
        assert off.min() < 0.02, (box, label)
        assert abs(scores[off.argmin()] - score) < 1e-3
    assert len(recorded["boxes"]) == detection_nets.KEPT <= len(boxes)
    best = np.sort(scores)[::-1][: detection_nets.KEPT]
    np.testing.assert_allclose(best, recorded["scores"], atol=1e-3)


def test_boxes_are_torchvisions():
    weights = convert(file_of(detection_nets.state_dict(SHAPES))).weights
    images, sizes = detection_nets.inputs()
    found = jax.jit(weights.create_model().apply)(weights.variables, {"images": images, "sizes": sizes})
    for i, recorded in enumerate(RECORDED["inputs"]):
        assert_same((found.boxes[i], found.scores[i], found.labels[i]), recorded)

    # And back: all of the names that torchvision's `load_state_dict` wants; frozen batch norm drops the counters.
    again = state_dict(weights, natural_layout(weights))
    again = {key: value for key, value in again.items() if not key.endswith("num_batches_tracked")}
    assert {key: value.shape for key, value in again.items()} == SHAPES
    assert all(np.array_equal(value, detection_nets.state_dict(SHAPES)[key]) for key, value in again.items())


def test_boxes_of_pictures_are_torchvisions(tmp_path):
    """From a file with the names of 2019, as published: resized as torchvision does, and back to pixels of the file."""
    older = {
        name.replace("conv.0.0", "conv") if name.startswith("rpn") else
        name.replace(".0.weight", ".weight").replace(".0.bias", ".bias") if "_blocks" in name else name: tensor
        for name, tensor in detection_nets.state_dict(SHAPES).items()
    }  # fmt: skip
    weights = convert(file_of(older), fields={"norm_epsilon": "0"}).weights
    assert weights.source["layout"] == "torchvision_faster_rcnn_fpn_2019"
    saved = Weights(**{**vars(weights), "image_size": detection_nets.SIDE})
    predictor = BoxPredictor(read_weights(save_weights(saved, tmp_path)))
    for picture, recorded in zip(detection_nets.pictures(), RECORDED["pictures"], strict=True):
        found = predictor(picture)
        assert_same(list(zip(*((one.corners, one.score, one.label) for one in found), strict=True)), recorded)


def test_facts_of_the_file(tmp_path):
    """Its class names, what is taken for granted, and the published file's batch norm, told by its name."""
    tensors = detection_nets.state_dict(SHAPES)
    mask = {f"roi_heads.mask_head.mask_fcn1.{leaf}": np.ones(4, np.float32) for leaf in ("weight", "bias")}
    for name, epsilon in (("fasterrcnn_resnet50_fpn_coco-258fb6c6.safetensors", 0.0), ("mine.safetensors", 1e-5)):
        save_file(tensors | mask, tmp_path / name)
        read = import_weights(tmp_path / name)
        net = read.weights.create_model()
        assert net.norm_epsilon == epsilon and net.task == "detection"
        assert (read.weights.model, net.stage_sizes, net.num_classes) == ("faster_rcnn_fpn_resnet18", (1, 1, 1, 1), 90)
        assert read.weights.classes == CLASSES and read.weights.image_size == 800
        assert any("variances" in note for note in read.notes) and any("mask_head" in note for note in read.notes)
    assert (CLASSES[0], CLASSES[17], CLASSES[89]) == ("person", "dog", "toothbrush")  # by COCO's ids 1, 18 and 90
    assert sum(name.startswith("unused") for name in CLASSES) == 10


def test_other_detectors_give_their_body():
    """Without the head of two layers, as in RetinaNet: a net of features."""
    tensors = {k: v for k, v in detection_nets.state_dict(SHAPES).items() if not k.startswith("roi_heads")}
    weights = convert(file_of(tensors)).weights
    assert weights.create_model().task == "classification" and weights.num_classes == 0


def test_a_net_of_ones_own_goes_out_and_comes_back(tmp_path):
    fields = {"stage_sizes": (1, 1, 1), "widths": (8, 16, 32), "shortcut": "B", "num_classes": 2, "fpn_features": 8,
              "head_features": 16, "rpn_features": 8, "region_size": 3}  # fmt: skip
    net = create_model("faster_rcnn_fpn_cifar_resnet20", **fields)
    shapes = jax.eval_shape(lambda: net.init(jax.random.key(0), np.zeros((1, 32, 32, 3), np.float32)))
    variables = jax.tree.map(lambda s: made.generator(str(s.shape)).uniform(0.5, 1, s.shape).astype(np.float32), shapes)
    weights = Weights("faster_rcnn_fpn_cifar_resnet20", fields, variables, 128, np.zeros(3), np.ones(3))
    notes = export_safetensors(weights, tmp_path / "net.safetensors")["notes"]
    assert any("anchor_sizes=(16, 32, 64)" in note for note in notes)
    again = import_weights(tmp_path / "net.safetensors").weights
    assert all(jax.tree.leaves(jax.tree.map(np.array_equal, again.variables, variables)))
    assert again.create_model() == net
