"""Semantic segmentation: the class of every pixel. Cross-entropy with an ignored label; intersection over union."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import jax.numpy as jnp
import numpy as np
import optax
from jax import Array
from ml_collections import ConfigDict

from resnet_jax.data.segmentation.masks import IGNORE
from resnet_jax.errors import UserError
from resnet_jax.tasks.task import Task


@dataclasses.dataclass(frozen=True)
class Segmentation(Task):
    """Trains a net to name the class of every pixel.

    Outputs are logits (batch, height, width, num_classes), in training also a pair of them, whose second is the
    auxiliary head's. Targets are labels (batch, height, width), `IGNORE` where there is none.

    Attributes:
      num_classes: number of classes.
      classes: their names; empty: numbers.
      class_weights: factor on the loss of each class's pixels; empty: 1.
      auxiliary_weight: factor on the auxiliary head's loss (Zhao et al. 2017, section 3.3: 0.4).
    """

    num_classes: int
    classes: tuple[str, ...] = ()
    class_weights: tuple[float, ...] = ()
    auxiliary_weight: float = 0.4

    best_metric: ClassVar[str] = "test_mean_iou"
    lower_is_better: ClassVar[bool] = False
    shown: ClassVar[Mapping[str, str]] = {
        "train_pixel_accuracy": "%", "test_pixel_accuracy": "%", "test_mean_iou": "%"
    }  # fmt: skip

    @classmethod
    def from_config(cls, config: ConfigDict, num_classes: int, classes: Sequence[str] = ()) -> "Segmentation":
        """Builds the task from a run's config.

        Raises:
          UserError: for class weights that are not one for each class.
        """
        weights = tuple(config.segmentation.class_weights)
        if weights and len(weights) != num_classes:
            raise UserError(f"config.segmentation.class_weights has {len(weights)} numbers, for {num_classes} classes")
        return cls(num_classes, tuple(classes), weights, config.segmentation.auxiliary_weight)

    @property
    def chance_loss(self) -> float:
        """Returns the loss of logits that are all alike, of both heads."""
        return float(np.log(self.num_classes)) * (1 + self.auxiliary_weight)

    def pixel_losses(self, logits: Array, labels: Array) -> tuple[Array, Array]:
        """Returns the cross-entropy of each pixel times its weight, and its weight, 0 for an ignored one."""
        known = labels != IGNORE
        labels = jnp.where(known, labels, 0).astype(jnp.int32)
        weights = jnp.asarray(self.class_weights or (1.0,) * self.num_classes, jnp.float32)[labels] * known
        return optax.softmax_cross_entropy_with_integer_labels(logits, labels) * weights, weights

    def example_losses(self, outputs: Any, inputs: Any, targets: Any) -> Array:
        """Returns the mean loss over the pixels of each example, (batch,), of the main head."""
        losses, weights = self.pixel_losses(_main(outputs), targets)
        return losses.sum(axis=(1, 2)) / jnp.maximum(weights.sum(axis=(1, 2)), 1e-9)

    def loss(self, outputs: Any, inputs: Any, targets: Any) -> tuple[Array, dict[str, Array]]:
        """Returns the mean over all pixels of the batch, with the auxiliary head's, and the `error` of the pixels."""

        def mean(logits: Array) -> Array:
            losses, weights = self.pixel_losses(logits, targets)
            return losses.sum() / jnp.maximum(weights.sum(), 1e-9)

        main = _main(outputs)
        loss = mean(main)
        if isinstance(outputs, tuple):
            loss += self.auxiliary_weight * mean(outputs[1])
        known = targets != IGNORE
        wrong = (jnp.argmax(main, axis=-1) != targets) & known
        return loss, {"error": wrong.sum() / jnp.maximum(known.sum(), 1)}

    def train_metrics(self, means: Mapping[str, float]) -> dict[str, float]:
        """Returns `train_pixel_accuracy` in percent."""
        return {"train_pixel_accuracy": 100 * (1 - means["error"])}

    def evaluate(self, outputs: Any, inputs: Any, targets: Any, mask: Array) -> dict[str, Array]:
        """Returns counts of pixels and the sum of their losses, each pixel of the examples that count once.

        confusion: int32 (num_classes, num_classes + 1), by label (rows) and first guess; the last column is where the
        net's output is not finite. A batch must have fewer than 2^31 pixels.
        """
        logits, size = _main(outputs), self.num_classes
        labels = jnp.where(mask[:, None, None] > 0, targets, IGNORE)
        losses, weights = self.pixel_losses(logits, labels)
        guesses = jnp.where(jnp.isfinite(logits).all(axis=-1), jnp.argmax(logits, axis=-1), size)
        places = jnp.where(labels == IGNORE, size * (size + 1), labels.astype(jnp.int32) * (size + 1) + guesses)
        counts = jnp.zeros(size * (size + 1) + 1, jnp.int32).at[places.reshape(-1)].add(1)
        return {
            "confusion": counts[:-1].reshape(size, size + 1), "loss": losses.sum(), "weight": weights.sum()
        }  # fmt: skip

    def eval_metrics(self, batches: Sequence[Mapping[str, Any]]) -> dict[str, float]:
        """Returns `test_mean_iou`, `test_pixel_accuracy` and each class's `test_iou_NAME` in percent; `test_loss`.

        A class that neither the masks nor the net have anywhere has no IoU, and does not enter the mean.
        """
        confusion = sum(np.asarray(batch["confusion"], np.int64) for batch in batches)
        assert isinstance(confusion, np.ndarray)
        loss, weight = (sum(float(batch[name]) for batch in batches) for name in ("loss", "weight"))
        return scores(confusion, self.classes) | {"test_loss": loss / max(weight, 1e-9)}


def scores(confusion: np.ndarray, classes: Sequence[str] = ()) -> dict[str, float]:
    """Returns the metrics in percent that follow from counts of pixels; see `Segmentation.eval_metrics`.

    Args:
      confusion: integers (classes, guesses), by label and first guess; further guesses than classes are wrong ones.
      classes: names of the classes; empty: numbers.
    """
    size = len(confusion)
    right = np.diagonal(confusion)
    union = confusion.sum(axis=1) + confusion[:, :size].sum(axis=0) - right
    names = classes or [str(label) for label in range(size)]
    ious = {name: 100 * float(a / b) for name, a, b in zip(names, right, union, strict=True) if b}
    return {
        "test_mean_iou": float(np.mean(list(ious.values()))) if ious else 0.0,
        "test_pixel_accuracy": 100 * float(right.sum() / max(confusion.sum(), 1)),
        **{f"test_iou_{name.replace(' ', '_')}": iou for name, iou in ious.items()},
    }


def _main(outputs: Any) -> Array:
    return outputs[0] if isinstance(outputs, tuple) else outputs
