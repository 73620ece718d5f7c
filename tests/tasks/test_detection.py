"""The losses of detection, against the formulas of the papers in NumPy, and what is evaluated."""

import jax
import numpy as np
import pytest

from resnet_jax.data.detection.batches import Batch
from resnet_jax.models.detection.detector import Losses
from resnet_jax.models.detection.regions import Detections, Trained
from resnet_jax.tasks.detection import Detection


def smooth_l1(off: np.ndarray, beta: float) -> np.ndarray:
    """Girshick 2015, equation 3, as Detectron has it: a line from beta on."""
    return np.where(np.abs(off) < beta, 0.5 * off**2 / beta, np.abs(off) - 0.5 * beta)


def outputs(beta: float) -> tuple[Losses, dict[str, np.ndarray]]:
    """Random outputs for two images, of which some entries are none; and what is in them."""
    rng = np.random.default_rng(0)
    shapes = {"objectness": (), "anchor_deltas": (4,), "logits": (3,), "deltas": (4,), "targets": (4,)}
    values = {name: rng.normal(0, 0.5, (2, 6, *shape)).astype(np.float32) for name, shape in shapes.items()}
    labels = np.array([[1, 2, 0, 0, 0, 0], [2, 0, 0, 0, 0, 0]], np.int32)
    valid = np.array([[1, 1, 1, 1, 1, 1], [1, 1, 1, 0, 0, 0]], bool)
    trained = Trained(np.zeros((2, 6), np.int32), valid, labels, values["targets"])
    found = Losses(trained, trained, values["objectness"], values["anchor_deltas"], values["logits"],
                   values["deltas"], beta)  # fmt: skip
    return found, values | {"labels": labels, "valid": valid}


@pytest.mark.parametrize("beta", [1.0, 1 / 9])
def test_losses_are_means_over_what_was_drawn(beta: float) -> None:
    """That of anchors' boxes turns at 1/9 (py-faster-rcnn's sigma of 3), that of regions' where the net says."""
    losses, found = outputs(beta)
    total, parts = jax.jit(lambda one: Detection(2).loss(one, None, None))(losses)
    positive, valid = found["labels"] > 0, found["valid"]
    for name, deltas, turn in (("proposal_loss", "anchor_deltas", 1 / 9), ("box_loss", "deltas", beta)):
        each = smooth_l1(found[deltas] - found["targets"], turn).sum(axis=-1)
        assert parts[name] == pytest.approx(each[positive].sum() / valid.sum(), rel=1e-5), name
    x = found["objectness"]
    assert parts["objectness_loss"] == pytest.approx((np.logaddexp(0, x) - x * positive)[valid].mean(), rel=1e-5)
    own = np.take_along_axis(found["logits"], found["labels"][..., None], axis=-1)[..., 0]
    entropy = np.log(np.exp(found["logits"]).sum(axis=-1)) - own
    assert parts["class_loss"] == pytest.approx(entropy[valid].mean(), rel=1e-5)
    assert total == pytest.approx(sum(float(value) for name, value in parts.items() if name != "error"), rel=1e-6)
    wrong = found["logits"].argmax(axis=-1) != found["labels"]
    assert parts["error"] == pytest.approx(wrong[valid].mean(), rel=1e-6)


@pytest.mark.parametrize(
    ("trained", "counted"),
    [("rpn", {"objectness_loss", "proposal_loss"}), ("regions", {"class_loss", "box_loss", "error"})],
)
def test_a_step_of_alternating_training_has_half_of_the_losses(trained: str, counted: set[str]) -> None:
    losses, _ = outputs(1.0)
    _, joint = Detection(2).loss(losses, None, None)
    total, parts = Detection(2, trained=trained).loss(losses, None, None)
    assert parts == {name: joint[name] for name in counted}
    assert total == pytest.approx(sum(float(joint[name]) for name in counted - {"error"}), rel=1e-6)


def test_chance_is_logits_of_zero_and_boxes_that_are_right() -> None:
    losses, _ = outputs(1.0)
    nothing = losses._replace(objectness=np.zeros((2, 6)), logits=np.zeros((2, 6, 3)),
                              anchor_deltas=losses.anchors.targets, deltas=losses.regions.targets)  # fmt: skip
    assert Detection(2).chance_loss == pytest.approx(float(Detection(2).loss(nothing, None, None)[0]))


def test_what_is_evaluated_is_in_pixels_of_the_files_and_of_the_images_that_count() -> None:
    """By hand, of two classes with objects and one without: "a" is found first of all, "b" behind a mistake of its own.

    Heights and widths were scaled apart. Of "a" the second object is missed; the third image only fills the batch.
    """
    scales = np.array([[2.0, 4.0], [0.5, 0.25], [1.0, 1.0]], np.float32)
    factors = np.tile(scales[:, None, ::-1], (1, 1, 2))  # x by the width's
    there = np.array([[[0, 0, 10, 20], [30, 40, 50, 80]], [[8, 8, 24, 16], [0, 0, 0, 0]], [[0, 0, 9, 9], [0, 0, 9, 9]]])
    labels = np.array([[0, 0], [1, -1], [2, 2]], np.int32)
    seen = np.array([[[0, 0, 10, 20], [60, 0, 70, 9]], [[8, 8, 24, 16], [0, 0, 4, 4]], [[0, 0, 9, 9], [0, 0, 9, 9]]])
    found = Detections(seen * factors, np.array([[0.9, 0.8], [0.6, 0.7], [1.0, 1.0]]),
                       np.array([[0, 1], [1, 1], [2, 2]]), np.array([[1, 1], [1, 0], [1, 1]], bool))  # fmt: skip
    batch = Batch.empty(3, (4, 4), 2)._replace(scales=scales, boxes=there * factors, labels=labels)
    task = Detection(3, ("a", "b", "sea lion"))
    evaluated = jax.device_get(task.evaluate(found, None, batch, np.array([1.0, 1.0, 0.0])))
    np.testing.assert_allclose(evaluated["boxes"], there)
    np.testing.assert_allclose(evaluated["found"].boxes, seen)
    # Recall of "a" ends at one half with a precision of 1: the area is 1/2, and 6 of 11 recalls are reached.
    assert task.eval_metrics([evaluated]) == pytest.approx(
        {"test_ap50_a": 50, "test_ap50_b": 50, "test_ap50": 50, "test_ap50_11_point": 50 * (6 / 11 + 1 / 2)}
    )
    every = jax.device_get(task.evaluate(found, None, batch, np.ones(3)))
    assert task.eval_metrics([every])["test_ap50_sea_lion"] == 50  # twice one place: two objects share one match
