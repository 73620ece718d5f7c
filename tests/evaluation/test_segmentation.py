"""Probabilities of pixels by several views against NumPy, Pillow and OpenCV, and the table that a test leaves."""

import csv
import json

import cv2
import jax
import numpy as np
import pytest
from flax import linen as nn
from PIL import Image

from resnet_jax.evaluation import predict_masks
from resnet_jax.evaluation.segmentation import SegmentationResult, probabilities, write_segmentation
from resnet_jax.tasks.segmentation import Segmentation
from tests.evaluation.nets import small_weights

CLASSES = ("ground", "bright", "dark")


class Lopsided(nn.Module):
    """A 3x3 convolution, whose kernel is not its own mirror image."""

    @nn.compact
    def __call__(self, x, train=False):
        return nn.Conv(3, (3, 3), padding=1, use_bias=False, name="conv")(x)


def softmax_of(kernel, image):
    """The same in NumPy, of one image."""
    height, width, _ = image.shape
    padded = np.pad(np.float64(image), ((1, 1), (1, 1), (0, 0)))
    powers = np.exp(sum(padded[i : i + height, j : j + width] @ kernel[i, j] for i in range(3) for j in range(3)))
    return powers / powers.sum(axis=-1, keepdims=True)


def resized(image, height, width):
    """By Pillow's antialiased bilinear filter."""
    parts = [Image.fromarray(np.ascontiguousarray(part), "F") for part in np.moveaxis(image, -1, 0)]
    return np.stack([part.resize((width, height), Image.Resampling.BILINEAR) for part in parts], axis=-1)


@pytest.mark.parametrize(("scales", "mirrored"), [((1.0,), False), ((1.0,), True), ((0.5, 1.0, 1.5), True)])
def test_every_view_says_the_same_pixels_class(scales, mirrored):
    """What a mirror image says is mirrored back, and what is said at another size is brought to the image's."""
    images = np.random.default_rng(0).normal(size=(2, 12, 10, 3)).astype(np.float32)
    variables = {"params": {"conv": {"kernel": np.random.default_rng(1).normal(size=(3, 3, 3, 3)).astype(np.float32)}}}
    kernel = np.float64(variables["params"]["conv"]["kernel"])
    found = jax.jit(lambda x: probabilities(Lopsided(), variables, x, scales, mirrored))(images)
    for image, mean in zip(images, np.asarray(found), strict=True):
        views = []
        for scale in scales:
            view = image if scale == 1 else resized(image, round(12 * scale), round(10 * scale))
            said = [softmax_of(kernel, view)]
            if mirrored:
                said.append(softmax_of(kernel, view[:, ::-1])[:, ::-1])
            views += [cv2.resize(one, (10, 12), interpolation=cv2.INTER_LINEAR) for one in said]
        np.testing.assert_allclose(mean, np.mean(views, axis=0), atol=2e-5)


def test_the_table_has_the_iou_of_each_class(tmp_path):
    """Pixels without a label count nowhere; those whose output is not finite are wrong."""
    rng = np.random.default_rng(0)
    labels, guesses = rng.integers(0, 2, (2, 9, 8)), rng.integers(0, 3, (2, 9, 8))
    labels[0, 0] = 255
    logits = np.float32(5 * np.eye(3)[guesses])
    logits[1, 2, 3] = np.nan
    guesses[1, 2, 3] = -1
    confusion = np.asarray(Segmentation(3, CLASSES).evaluate(logits, None, labels, np.ones(2))["confusion"])
    result = SegmentationResult(
        "net", "set", "mirrored", (1.0,), "test", 7, 2, 0, {"test_mean_iou": 1.0}, "0" * 12, "", {}, {}
    )  # fmt: skip
    path = write_segmentation(result, confusion, CLASSES, tmp_path)
    assert json.loads(path.read_text())["metrics"] == result.metrics
    with (path.parent / "mirrored_classes.csv").open() as file:
        rows = list(csv.DictReader(file))
    known = labels != 255
    for k, row in enumerate(rows):
        there, guessed = labels == k, (guesses == k) & known
        assert (row["class"], int(row["pixels"])) == (CLASSES[k], there.sum())
        iou = 100 * (there & guessed).sum() / (there | guessed).sum()
        assert float(row["iou_percent"]) == pytest.approx(iou, abs=1e-4)
    assert len(rows) == 3


def test_large_photographs_are_shrunk_and_their_labels_spread_again(monkeypatch):
    """By two here: four equal pixels are one, and have its label."""
    weights = small_weights(classes=tuple("abcdefghij"), head="fcn", head_width=8)
    weights.variables["params"]["head"]["bias"][:] = 0
    predictor = predict_masks.MaskPredictor(weights)
    small = np.random.default_rng(0).integers(0, 256, (10, 16, 3)).astype(np.uint8)
    expected = predictor(small)
    assert len(np.unique(expected)) > 3, "labels must not be averaged"
    monkeypatch.setattr(predict_masks, "LARGEST", 16)
    found = predictor(small.repeat(2, axis=0).repeat(2, axis=1))
    np.testing.assert_array_equal(found, expected.repeat(2, axis=0).repeat(2, axis=1))
