"""Mean curves of runs that differ only in their seed."""

import dataclasses
import functools
from collections.abc import Sequence
from typing import Any

import numpy as np

from resnet_jax.report.run_data import Run
from resnet_jax.report.style import COLOURS


@dataclasses.dataclass(frozen=True, eq=False)
class Curve:
    """Mean and sample standard deviation (0 for one run) over runs at each of `steps`; all [points].

    The values are errors in percent, or losses in nats.
    """

    steps: np.ndarray
    mean: np.ndarray
    std: np.ndarray

    def thinned(self, points: int) -> "Curve":
        """Returns at most so many points, evenly spaced, with the last one."""
        picked = np.unique(np.linspace(0, len(self.steps) - 1, min(points, len(self.steps))).round().astype(int))
        return Curve(self.steps[picked], self.mean[picked], self.std[picked])

    def to_json(self) -> dict[str, Any]:
        """Returns lists of numbers, rounded to what a screen can show."""
        return {
            "steps": self.steps.tolist(),
            "mean": self.mean.round(3).tolist(),
            "std": self.std.round(3).tolist() if self.std.any() else [],
        }


@dataclasses.dataclass(frozen=True, eq=False)
class Series:
    """A row's finished runs as one line of each kind.

    Attributes:
      label, group: of the row.
      depth: weighted layers of the net.
      runs: how many.
      train, test: their errors.
      loss: their training loss.
    """

    label: str
    group: str
    depth: int
    runs: int
    train: Curve
    test: Curve
    loss: Curve


def make_series(label: str, group: str, runs: Sequence[Run]) -> Series | None:
    """Returns the mean curves of the finished runs, None if there are none."""
    finished = [run for run in runs if run.result is not None]
    if not finished:
        return None
    assert finished[0].result is not None
    train = average([(run.train_steps, run.train_errors) for run in finished])
    test = average([(run.test_steps, run.test_errors) for run in finished])
    loss = average([(run.train_steps, run.train_losses) for run in finished])
    return Series(label, group, finished[0].result.depth, len(finished), train, test, loss)


def average(lines: Sequence[tuple[np.ndarray, np.ndarray]]) -> Curve:
    """Returns the mean over some lines at the steps that all of them have.

    Args:
      lines: (steps, values) of each, both [points].
    """
    steps = functools.reduce(np.intersect1d, [steps for steps, _ in lines])
    values = np.stack([errors[np.searchsorted(own, steps)] for own, errors in lines])
    std = values.std(axis=0, ddof=1) if len(lines) > 1 else np.zeros(len(steps))
    return Curve(steps, values.mean(axis=0), std)


def colour_indices(series: Sequence[Series]) -> list[int]:
    """Returns the index of each one's colour: by depth if no two lines of a group share a depth, else by label.

    So a plain net has its residual twin's colour, and a net that stands in two panels the same in both.
    """
    labels: dict[tuple[str, int], set[str]] = {}
    for one in series:
        labels.setdefault((one.group, one.depth), set()).add(one.label)
    by_depth = all(len(found) == 1 for found in labels.values())
    if by_depth:
        depths = sorted({one.depth for one in series})
        return [depths.index(one.depth) % len(COLOURS) for one in series]
    names = list(dict.fromkeys(one.label for one in series))
    return [names.index(one.label) % len(COLOURS) for one in series]
