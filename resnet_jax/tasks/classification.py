"""Classification: cross-entropy, the error of the first guess, mixed images and soft labels."""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import jax.numpy as jnp
import optax
from jax import Array
from ml_collections import ConfigDict

from resnet_jax.data.mixing import soften
from resnet_jax.tasks.task import Task


@dataclasses.dataclass(frozen=True)
class Classification(Task):
    """Trains a net to name the class of an image. Outputs are logits, (batch, num_classes); targets labels, (batch,).

    Attributes:
      num_classes: number of classes.
      binary: whether each class is held against the rest, as in Wightman et al. 2021, instead of the softmax.
      target_threshold: soft targets above it count as 1 and others as 0 in the binary loss; 0: they stay as they are.
      label_smoothing: share of a target that all classes get alike (Szegedy et al. 2016).
      mixup, cutmix: alpha of Zhang et al. 2018 and Yun et al. 2019; 0: off.
    """

    num_classes: int
    binary: bool = False
    target_threshold: float = 0.0
    label_smoothing: float = 0.0
    mixup: float = 0.0
    cutmix: float = 0.0

    best_metric: ClassVar[str] = "test_error"
    shown: ClassVar[Mapping[str, str]] = {"train_error": "%", "test_error": "%"}

    @classmethod
    def from_config(cls, config: ConfigDict, num_classes: int, classes: Sequence[str] = ()) -> "Classification":
        """Builds the task from a run's config; the names of the classes do not matter to it."""
        mix = config.regularization
        return cls(num_classes, config.loss == "binary_cross_entropy", mix.target_threshold, mix.label_smoothing,
                   mix.mixup, mix.cutmix)  # fmt: skip

    @property
    def chance_loss(self) -> float:
        """Returns the loss of logits that are all alike."""
        return math.log(2 if self.binary else self.num_classes)

    def augment(self, key: Array, inputs: Array, targets: Array) -> tuple[Array, Array]:
        """Mixes images and softens labels, as far as that is on."""
        return soften(key, inputs, targets, self.num_classes, smoothing=self.label_smoothing,
                      mixup_alpha=self.mixup, cutmix_alpha=self.cutmix)  # fmt: skip

    def example_losses(self, outputs: Array, inputs: Array, targets: Array) -> Array:
        """Returns the loss that is trained on, (batch,). Targets may be soft, (batch, num_classes)."""
        if self.binary:
            return binary_cross_entropy(outputs, targets, self.target_threshold)
        return cross_entropy(outputs, targets)

    def loss(self, outputs: Array, inputs: Array, targets: Array) -> tuple[Array, dict[str, Array]]:
        """Returns the batch's mean loss and its `error`, a fraction."""
        losses = self.example_losses(outputs, inputs, targets)
        return losses.mean(), {"error": is_error(outputs, targets).mean()}

    def train_metrics(self, means: Mapping[str, float]) -> dict[str, float]:
        """Returns `train_error` in percent."""
        return {"train_error": 100 * means["error"]}

    def evaluate(self, outputs: Array, inputs: Array, targets: Array, mask: Array) -> dict[str, Array]:
        """Returns sums over the batch: softmax cross-entropy whatever was trained on, wrong first guesses, examples."""
        return {
            "loss": jnp.sum(cross_entropy(outputs, targets) * mask),
            "error": jnp.sum(is_error(outputs, targets) * mask),
            "count": jnp.sum(mask),
        }

    def eval_metrics(self, batches: Sequence[Mapping[str, Any]]) -> dict[str, float]:
        """Returns `test_error` in percent and the mean `test_loss`."""
        total = {name: sum(float(batch[name]) for batch in batches) for name in ("error", "loss", "count")}
        return {"test_error": 100 * total["error"] / total["count"], "test_loss": total["loss"] / total["count"]}


def cross_entropy(logits: Array, labels: Array) -> Array:
    """Returns the softmax cross-entropy of each example, (batch,). Labels are (batch,), or soft: (batch, classes)."""
    if labels.ndim == 2:
        return optax.softmax_cross_entropy(logits, labels)
    return optax.softmax_cross_entropy_with_integer_labels(logits, labels)


def binary_cross_entropy(logits: Array, labels: Array, threshold: float = 0.0) -> Array:
    """Returns -t log s - (1 - t) log (1 - s) of each example, s the sigmoid, averaged over the classes, (batch,).

    The mean over classes, as in timm, and not the sum: Adam's epsilon sees the gradient's size (Wightman et al. 2021,
    section 3).

    Args:
      logits: (batch, classes).
      labels: (batch,), or soft: (batch, classes).
      threshold: soft labels above it are 1 and others 0; 0: they stay as they are.
    """
    if labels.ndim == 1:
        labels = jnp.arange(logits.shape[-1]) == labels[:, None]
    elif threshold:
        labels = labels > threshold
    return optax.sigmoid_binary_cross_entropy(logits, labels.astype(logits.dtype)).mean(axis=-1)


def is_error(logits: Array, labels: Array) -> Array:
    """Returns 1.0 where the largest logit is not the label's, or any is not finite, (batch,).

    Of soft labels the largest counts.
    """
    if labels.ndim == 2:
        labels = jnp.argmax(labels, axis=-1)
    # The argmax of NaNs is class 0, which would be right for every tenth image.
    wrong = (jnp.argmax(logits, axis=-1) != labels) | ~jnp.all(jnp.isfinite(logits), axis=-1)
    return wrong.astype(jnp.float32)
