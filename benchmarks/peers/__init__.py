"""What a user would pick instead, with our weights: a training step and an evaluation step of the same net each."""

import dataclasses
from collections.abc import Callable

import numpy as np


@dataclasses.dataclass
class Contestant:
    """Something that takes steps on batches of its own, resident on its device.

    Attributes:
      name: what the table calls it.
      losses: takes so many training steps and returns each one's mean loss, which waits for the device.
      evaluate: so many evaluation batches; returns the mean loss of each, in the same way.
    """

    name: str
    losses: Callable[[int], list[float]]
    evaluate: Callable[[int], list[float]]


@dataclasses.dataclass(frozen=True)
class Task:
    """What all contestants do alike.

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
