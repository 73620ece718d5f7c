"""The losses of detection, against the formulas of the papers in NumPy."""

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


def test_images_that_only_fill_a_batch_do_not_count() -> None:
    """Of three alike, one object each, the last two fill: nothing was found there, and it is no miss."""
    box = np.tile(np.float32([[[8, 4, 40, 24]]]), (3, 1, 1))
    batch = Batch.empty(3, (48, 64), 2)
    batch.scales[:], batch.boxes[:, :1], batch.labels[:, 0], batch.areas[:, 0] = (2, 4), box, 1, 80
    found = Detections(box, np.full((3, 1), 0.9, np.float32), np.full((3, 1), 1), np.array([[True], [False], [False]]))
    task = Detection(2, ("cat", "dog"))
    counted = {
        fills: task.eval_metrics([jax.device_get(task.evaluate(found, None, batch, np.array([1, 1 - fills, 0])))])
        for fills in (0, 1)
    }
    assert counted[1] == {"test_ap50": 100.0, "test_ap50_11_point": 100.0, "test_ap50_dog": 100.0}
    assert counted[0]["test_ap50"] == pytest.approx(50.0)
