"""Detection: the losses of Faster R-CNN, trained jointly, and the average precision of what it finds."""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import jax.numpy as jnp
import numpy as np
import optax
from jax import Array
from ml_collections import ConfigDict

from resnet_jax.data.detection.batches import Batch
from resnet_jax.models.detection.detector import Losses
from resnet_jax.models.detection.regions import Detections
from resnet_jax.tasks.average_precision import Curve, Found, Truth, area_under, eleven_points, precision_recall
from resnet_jax.tasks.coco_metrics import check_installed, coco_metrics
from resnet_jax.tasks.task import Task

#: Where the smooth L1 loss of anchors turns from a square into a line (py-faster-rcnn's sigma of 3).
ANCHOR_BETA = 1 / 9

#: Which losses count, by `config.detection.trained`.
TRAINED: Mapping[str, Sequence[str]] = {
    "joint": ("objectness_loss", "proposal_loss", "class_loss", "box_loss"),
    "rpn": ("objectness_loss", "proposal_loss"),
    "regions": ("class_loss", "box_loss"),
}


@dataclasses.dataclass(frozen=True)
class Detection(Task):
    """Trains a net to find objects. Outputs are `Losses` in training and `Detections` in testing; targets a `Batch`.

    The RPN and the classifier of regions are trained by one step, with no gradient through the proposals' places:
    "approximate joint training" (Ren et al. 2015, section 3.2). In a step of alternating training one of the two is.

    Attributes:
      num_classes: number of classes.
      classes: their names; empty: numbers.
      coco: whether COCO's metrics are measured.
      trained: which losses count, a key of `TRAINED`.
    """

    num_classes: int
    classes: tuple[str, ...] = ()
    coco: bool = False
    trained: str = "joint"

    best_metric: ClassVar[str] = "test_ap50"
    lower_is_better: ClassVar[bool] = False
    shown: ClassVar[Mapping[str, str]] = {"train_error": "%", "test_ap50": "%"}

    @classmethod
    def from_config(cls, config: ConfigDict, num_classes: int, classes: Sequence[str] = ()) -> "Detection":
        """Builds the task from a run's config.

        Raises:
          UserError: for COCO's metrics without pycocotools.
        """
        if config.data.name == "coco":
            check_installed()
        return cls(num_classes, tuple(classes), config.data.name == "coco", config.detection.trained)

    @property
    def chance_loss(self) -> float:
        """Returns the loss of logits that are all alike, without that of boxes."""
        return math.log(2) + math.log(1 + self.num_classes)

    def loss(self, outputs: Losses, inputs: Any, targets: Any) -> tuple[Array, dict[str, Array]]:
        """Returns the sum of the losses that count, each a mean over what was drawn, these, and `error`, of regions."""
        anchors, regions = outputs.anchors, outputs.regions
        wrong = jnp.argmax(outputs.logits, axis=-1) != regions.labels
        of_anchors = optax.sigmoid_binary_cross_entropy(outputs.objectness, (anchors.labels > 0).astype(jnp.float32))
        of_regions = optax.softmax_cross_entropy_with_integer_labels(outputs.logits, regions.labels)
        found = {
            "objectness_loss": _mean(of_anchors, anchors.valid),
            "proposal_loss": _box_loss(outputs.anchor_deltas, anchors, ANCHOR_BETA),
            "class_loss": _mean(of_regions, regions.valid),
            "box_loss": _box_loss(outputs.deltas, regions, outputs.region_beta),
        }
        found = {name: found[name] for name in TRAINED[self.trained]}
        error = {"error": _mean(wrong, regions.valid)} if "class_loss" in found else {}
        return jnp.sum(jnp.stack(list(found.values()))), found | error

    def train_metrics(self, means: Mapping[str, float]) -> dict[str, float]:
        """Returns the losses, and `train_error`, the share of the drawn regions that were put in another class."""
        return super().train_metrics(means) | ({"train_error": 100 * means["error"]} if "error" in means else {})

    def evaluate(self, outputs: Detections, inputs: Any, targets: Batch, mask: Array) -> dict[str, Any]:
        """Returns what was found and what there is, in pixels of the files."""
        scales = jnp.tile(targets.scales[:, None, ::-1], (1, 1, 2))
        return {
            "found": outputs._replace(boxes=outputs.boxes / scales),
            "boxes": targets.boxes / scales, "labels": targets.labels, "ignored": targets.ignored,
            "areas": targets.areas, "mask": mask,
        }  # fmt: skip

    def eval_metrics(self, batches: Sequence[Mapping[str, Any]]) -> dict[str, float]:
        """Returns in percent `test_ap50` and `test_ap50_11_point`, means over classes, and `test_ap50_NAME` of each.

        The first is the area under precision over recall at an IoU of 0.5, the second that of VOC 2007 at 11 points. A
        class without objects does not count. With `coco`, `test_ap`, `test_ap50` and so on are COCO's, and areas are of
        COCO's matches.
        """
        return self.metrics_of(*unpadded(batches))[0]

    def metrics_of(self, found: Sequence[Found], truth: Sequence[Truth]) -> tuple[dict[str, float], tuple[Curve, ...]]:
        """Returns the metrics of `eval_metrics`, and of each class the curve that they are of, at an IoU of 0.5."""
        curves = tuple(precision_recall(found, truth, label, coco=self.coco) for label in range(self.num_classes))
        names = self.classes or [str(label) for label in range(self.num_classes)]
        areas = {name: 100 * area_under(curve) for name, curve in zip(names, curves, strict=True) if curve.objects}
        points = [100 * eleven_points(curve) for curve in curves if curve.objects]
        metrics = {"test_ap50": _average(list(areas.values())), "test_ap50_11_point": _average(points)}
        if self.coco:
            measured = coco_metrics(found, truth, self.num_classes)
            metrics = {f"test_{name}": 100 * value for name, value in measured.items()}
        metrics |= {f"test_ap50_{name.replace(' ', '_')}": area for name, area in areas.items()}
        return metrics, curves


def unpadded(batches: Sequence[Mapping[str, Any]]) -> tuple[list[Found], list[Truth]]:
    """Returns what `Detection.evaluate` gave of each batch, image by image, without what only fills batches."""
    found, truth = [], []
    for batch in batches:
        outputs = Detections(*(np.asarray(array) for array in batch["found"]))
        for row in np.flatnonzero(np.asarray(batch["mask"])):
            valid, there = outputs.valid[row], batch["labels"][row] >= 0
            found.append(Found(outputs.boxes[row][valid], outputs.scores[row][valid], outputs.labels[row][valid]))
            truth.append(Truth(*(batch[name][row][there] for name in ("boxes", "labels", "ignored", "areas"))))
    return found, truth


def _mean(values: Array, valid: Array) -> Array:
    return jnp.sum(values * valid) / jnp.maximum(jnp.sum(valid), 1)


def _box_loss(deltas: Array, trained: Any, beta: float) -> Array:
    """Returns the smooth L1 loss of the boxes of objects, over the number of all that were drawn."""
    off = jnp.abs(deltas - trained.targets)
    losses = jnp.where(off < beta, off**2 / (2 * beta), off - beta / 2).sum(axis=-1)
    return jnp.sum(losses * (trained.labels > 0)) / jnp.maximum(jnp.sum(trained.valid), 1)


def _average(values: Sequence[float]) -> float:
    return float(np.mean(values)) if values else 0.0
