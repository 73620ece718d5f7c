"""The loss and the metrics of segmentation, against NumPy written from their definitions."""

import jax
import numpy as np
import pytest

from resnet_jax.config import base_config
from resnet_jax.errors import UserError
from resnet_jax.tasks.segmentation import Segmentation

RNG = np.random.default_rng(0)
CLASSES = ("sky", "sea", "land", "ship")
LOGITS = RNG.normal(size=(3, 5, 7, 4)).astype(np.float32) * 2
LABELS = RNG.integers(0, 3, (3, 5, 7))  # no pixel is a ship
LABELS[:, 0, :3] = 255


def by_definition(logits, labels, weights=(1, 1, 1, 1)):
    """The weighted mean of -log softmax over the pixels that have a label."""
    total = count = 0.0
    for pixel, label in zip(np.float64(logits).reshape(-1, 4), labels.reshape(-1), strict=True):
        if label != 255:
            total -= weights[label] * (pixel[label] - np.log(np.exp(pixel).sum()))
            count += weights[label]
    return total / count


@pytest.mark.parametrize("weights", [(), (0.5, 2.0, 1.0, 3.0)])
def test_loss_over_the_pixels_that_have_a_label(weights):
    task = Segmentation(4, class_weights=weights)
    loss, metrics = task.loss(LOGITS, None, LABELS)
    assert float(loss) == pytest.approx(by_definition(LOGITS, LABELS, weights or (1,) * 4), rel=1e-5)
    known = LABELS != 255
    assert float(metrics["error"]) == pytest.approx(np.mean(LOGITS.argmax(-1)[known] != LABELS[known]))
    for k in range(3):
        expected = by_definition(LOGITS[k], LABELS[k], weights or (1,) * 4)
        assert float(task.example_losses(LOGITS, None, LABELS)[k]) == pytest.approx(expected, rel=1e-5)


def test_ignored_pixels_have_no_gradient():
    gradient = jax.grad(lambda x: Segmentation(4).loss(x, None, LABELS)[0])(LOGITS)
    assert np.array_equal(np.abs(gradient).sum(axis=-1) > 0, LABELS != 255)
    alone = np.full_like(LABELS, 255)
    assert float(Segmentation(4).loss(LOGITS, None, alone)[0]) == 0, "a batch without a label"


def test_the_auxiliary_head_adds_its_share():
    other = LOGITS[::-1]
    loss, _ = Segmentation(4, auxiliary_weight=0.4).loss((LOGITS, other), None, LABELS)
    assert float(loss) == pytest.approx(by_definition(LOGITS, LABELS) + 0.4 * by_definition(other, LABELS), rel=1e-5)


def mean_iou(guesses, labels):
    """Of each class that is guessed or there: pixels that are both over pixels that are either."""
    known = labels != 255
    found = {}
    for k in range(4):
        guessed, there = (guesses == k) & known, labels == k
        if (guessed | there).any():
            found[CLASSES[k]] = 100 * (guessed & there).sum() / (guessed | there).sum()
    return found, 100 * np.mean(guesses[known] == labels[known])


@pytest.mark.parametrize("ships", [True, False])
def test_iou_over_several_batches(ships):
    """A class that is only guessed counts with an IoU of 0; one that is nowhere does not count."""
    task = Segmentation(4, CLASSES)
    logits = LOGITS if ships else LOGITS - 100 * (np.arange(4) == 3)
    batches = [task.evaluate(logits[k : k + 1], None, LABELS[k : k + 1], np.ones(1)) for k in range(3)]
    found = task.eval_metrics(jax.device_get(batches))
    ious, accuracy = mean_iou(logits.argmax(-1), LABELS)
    assert ("ship" in ious) == ships
    assert found["test_mean_iou"] == pytest.approx(np.mean(list(ious.values())))
    assert {k: v for k, v in found.items() if "test_iou" in k} == pytest.approx(
        {f"test_iou_{name}": iou for name, iou in ious.items()}
    )
    assert found["test_pixel_accuracy"] == pytest.approx(accuracy)
    assert found["test_loss"] == pytest.approx(by_definition(logits, LABELS), rel=1e-5)


def test_examples_that_fill_a_batch_do_not_count():
    task = Segmentation(4, CLASSES)
    two = task.evaluate(LOGITS, None, LABELS, np.array([1.0, 0.0, 1.0]))
    again = task.evaluate(LOGITS[[0, 2]], None, LABELS[[0, 2]], np.ones(2))
    assert np.array_equal(two["confusion"], again["confusion"])
    assert two["confusion"].sum() == (LABELS[[0, 2]] != 255).sum()
    assert float(two["loss"]) == pytest.approx(float(again["loss"]), rel=1e-6)


def test_an_output_that_is_not_finite_is_wrong():
    """The argmax of NaNs is class 0, which would be right for the sky."""
    logits, labels = LOGITS.copy(), np.zeros_like(LABELS)
    logits[..., 0] = 100
    logits[0, 0, 0] = np.nan
    found = Segmentation(4, CLASSES).evaluate(logits, None, labels, np.ones(3))["confusion"]
    assert np.array_equal(found[0], [labels.size - 1, 0, 0, 0, 1])


def test_counts_are_exact_beyond_the_digits_of_float32():
    counts = np.zeros((4, 5), np.int32)
    counts[0, 0], counts[0, 1] = 2**25, 1
    batches = [{"confusion": counts, "loss": 0.0, "weight": 1.0}] * 100
    found = Segmentation(4, CLASSES).eval_metrics(batches)
    assert found["test_iou_sky"] == 100 * (100 * 2**25) / (100 * 2**25 + 100)


@pytest.mark.parametrize("auxiliary", [0.4, 1.0])
def test_chance_is_logits_of_zero_of_both_heads(auxiliary):
    task = Segmentation(4, auxiliary_weight=auxiliary)
    nothing = np.zeros_like(LOGITS)
    assert task.chance_loss == pytest.approx(float(task.loss((nothing, nothing), None, LABELS)[0]))


def test_class_weights_are_one_for_each_class():
    config = base_config()
    config.segmentation.class_weights = (1.0, 2.0)
    with pytest.raises(UserError, match="class_weights has 2 numbers, for 4 classes"):
        Segmentation.from_config(config, 4, CLASSES)
    assert Segmentation.from_config(config, 2, CLASSES[:2]).class_weights == (1.0, 2.0)
