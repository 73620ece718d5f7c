"""The seam between training and what a net is trained for."""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import jax.numpy as jnp
from jax import Array


class Task:
    """Describes what a net is trained for.

    The training step, the loop, checkpoints, records and progress know a task by these members alone. A subclass needs
    no more than `example_losses`; the others have defaults that go with it.

    A batch is a pair of `inputs`, which the net is called with, and `targets`. Both may be any pytree of arrays whose
    first axis is the batch.

    Attributes:
      best_metric: metric of `eval_metrics` by which the best checkpoint and early stopping are chosen.
      lower_is_better: whether a lower value of it is better.
      shown: metrics that the progress display shows, with their units: {"test_error": "%"}.
    """

    best_metric: ClassVar[str] = "test_loss"
    lower_is_better: ClassVar[bool] = True
    shown: ClassVar[Mapping[str, str]] = {"test_loss": ""}

    @property
    def chance_loss(self) -> float:
        """Returns the loss of a net that knows nothing. A loss below it never counts as a jump."""
        return 0.0

    def augment(self, key: Array, inputs: Any, targets: Any) -> tuple[Any, Any]:
        """Changes a training batch across examples, as mixup does. Runs in the jitted step; by default does nothing."""
        return inputs, targets

    def example_losses(self, outputs: Any, inputs: Any, targets: Any) -> Array:
        """Returns the loss of each example, (batch,), without the weight decay."""
        raise NotImplementedError

    def loss(self, outputs: Any, inputs: Any, targets: Any) -> tuple[Array, dict[str, Array]]:
        """Returns the loss of a training batch, a scalar, and further metrics of it, scalars that are averaged."""
        return self.example_losses(outputs, inputs, targets).mean(), {}

    def train_metrics(self, means: Mapping[str, float]) -> dict[str, float]:
        """Returns what is recorded of the metrics of `loss`, which are means over the steps since the last line."""
        return {f"train_{name}": value for name, value in means.items()}

    def evaluate(self, outputs: Any, inputs: Any, targets: Any, mask: Array) -> dict[str, Array]:
        """Returns what `eval_metrics` needs of one evaluation batch. Runs in the jitted evaluation step.

        Args:
          outputs: of the net in testing mode.
          inputs, targets: the batch.
          mask: (batch,), 1 for examples that count and 0 for those that only fill the batch.
        """
        return {"loss": jnp.sum(self.example_losses(outputs, inputs, targets) * mask), "count": jnp.sum(mask)}

    def eval_metrics(self, batches: Sequence[Mapping[str, Any]]) -> dict[str, float]:
        """Returns the metrics of an evaluation, by the names under which they are recorded.

        Args:
          batches: what `evaluate` gave of each batch, on the host. Every example counts once.
        """
        total = {name: sum(float(batch[name]) for batch in batches) for name in batches[0]}
        return {f"test_{name}": value / total["count"] for name, value in total.items() if name != "count"}


def in_words(task: Task | type[Task], metrics: Mapping[str, float], evaluated_on: str = "test") -> str:
    """Returns the metrics that a task shows, as far as they are there: "training error 1.20 %, test error 8.27 %".

    Args:
      task: what they are of.
      metrics: by name; `best_...` is added to what it is the best of.
      evaluated_on: "test", "validation" or "held_out".
    """
    parts = []
    for name, unit in task.shown.items():
        if name in metrics:
            text = f"{heading(name, evaluated_on)} {metrics[name]:.2f} {unit}".rstrip()
            if (best := metrics.get(f"best_{name}")) is not None:
                which = "lowest" if task.lower_is_better else "highest"
                text += f" ({which} of all evaluations {best:.2f} {unit}".rstrip() + ")"
            parts.append(text)
    return ", ".join(parts)


def heading(name: str, evaluated_on: str = "test") -> str:
    """Returns what a metric is called: "training error" of `train_error`, "held-out mean IoU" of `test_mean_iou`."""
    split, _, kind = name.partition("_")
    what = "training" if split == "train" else evaluated_on.replace("_", "-")
    return f"{what} {spelt(kind)}"


def spelt(name: str) -> str:
    """Returns a metric's name as it is written: "test mean IoU" of `test_mean_iou`, "test AP50" of `test_ap50`."""
    return name.replace("_", " ").replace("iou", "IoU").replace("ap50", "AP50")
