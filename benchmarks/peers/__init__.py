"""What a user would pick instead, with our weights: a training step and an evaluation step of the same net each."""

import dataclasses
from collections.abc import Callable

import numpy as np


@dataclasses.dataclass
class Implementation:
    """Something that takes steps on batches of its own, which lie on its device.

    Attributes:
      name: what the table calls it.
      losses: takes so many training steps, waits for the device, and returns the mean loss of each.
      evaluate: the same with evaluation batches.
      step_from: takes one training step from the given parameters, with the momentum that there is; returns its loss
        and the new parameters. Both are nested dicts of arrays with our net's names and shapes.
    """

    name: str
    losses: Callable[[int], list[float]]
    evaluate: Callable[[int], list[float]]
    step_from: Callable[[dict], tuple[float, dict]]


@dataclasses.dataclass(frozen=True)
class Task:
    """What all implementations do alike.

    Attributes:
      fields: the net's: `stage_sizes`, `widths`, `block`, `stem`, `shortcut`, `num_classes`, `stride_on`.
      variables: nested dicts of float32 arrays, `{"params": ..., "batch_stats": ...}`, as our net names them.
      images, labels: batches to take in turn, (batches, batch, height, width, channels) and (batches, batch).
      learning_rate, momentum, weight_decay: of SGD; the decay is on every parameter.
      dtype: of the computation: "float32" or "bfloat16".
    """

    fields: dict
    variables: dict
    images: np.ndarray
    labels: np.ndarray
    learning_rate: float
    momentum: float
    weight_decay: float
    dtype: str
