"""Grad-CAM against class activation maps and against finite differences."""

import jax
import numpy as np
import pytest

from resnet_jax.analysis.cam import grad_cam
from resnet_jax.errors import UserError
from resnet_jax.models import VGG, ResNet, forward_with_features
from tests.models import reference as ref

LABELS = np.array([1, 3])


def make(**fields):
    net = ResNet(**{"stage_sizes": (2, 1), "widths": (4, 6), "stem": "cifar", "num_classes": 5} | fields)
    x = ref.images(2, 8, 8, 3)
    return net, ref.random_variables(net, x), x


@pytest.mark.parametrize("fields", [{}, {"activation": "full_preactivation"}, {"remat": True}])
def test_at_the_last_stage_it_is_the_class_activation_map(fields):
    """Zhou et al. 2016, equation 2: the features weighted by the classifier; Grad-CAM divides by the 4x4 positions."""
    net, variables, x = make(**fields)
    features = np.float64(forward_with_features(net.clone(remat=False), variables, x)[1]["final"])
    kernel = np.float64(variables["params"]["head"]["kernel"])
    expected = np.stack([image @ kernel[:, label] for image, label in zip(features, LABELS, strict=True)])
    assert (expected < 0).any() and (expected > 0).any()
    ref.assert_close(grad_cam(net, variables, x, LABELS), np.maximum(expected, 0) / 16)


def test_at_an_earlier_layer_weights_are_finite_differences():
    """One bias of a batch norm moves its channel at all positions alike: the logit moves by positions times alpha."""
    net, variables, x = make()
    layer, step = "stage1/block2/bn1", 1e-3  # less, and batch norm's float32 would be felt

    def logits(bias):
        with jax.enable_x64(True):
            doubled = jax.tree.map(np.float64, variables)
            doubled["params"]["stage1"]["block2"]["bn1"]["bias"] += bias
            return np.asarray(net.clone(dtype=np.float64).apply(doubled, np.float64(x)), np.float64)

    alpha = np.stack([
        [(logits(step * one)[i, label] - logits(-step * one)[i, label]) / (2 * step) / 64 for one in np.eye(4)]
        for i, label in enumerate(LABELS)
    ])  # fmt: skip
    features = np.float64(forward_with_features(net, variables, x)[1][layer])
    expected = np.maximum(np.einsum("nhwc,nc->nhw", features, alpha), 0)
    assert (expected == 0).any()
    positions = 64  # whose mean the weights are: taken back, so that the numbers are large enough to compare
    ref.assert_close(positions * grad_cam(net, variables, x, LABELS, layer), positions * expected, 3e-3)


def test_vgg_and_a_layer_of_another_size():
    net = VGG(stage_sizes=(1, 2), widths=(4, 6), hidden=7, num_classes=5)
    x = ref.images(2, 8, 8, 3)
    variables = ref.random_variables(net, x)
    assert grad_cam(net, variables, x, LABELS).shape == (2, 2, 2)
    assert grad_cam(net, variables, x, LABELS, "stage1/conv1").shape == (2, 8, 8)


@pytest.mark.parametrize("layer", ["stage9", "head", ""])
def test_a_layer_without_positions_is_refused(layer):
    net, variables, x = make()
    with pytest.raises(UserError, match="unknown layer with positions"):
        grad_cam(net, variables, x, LABELS, layer)
