"""Mean curves of runs that differ only in their seed, and the panels that a figure shows them in."""

import dataclasses
import functools
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np

from resnet_jax.report.run_data import Run
from resnet_jax.report.style import COLOURS

#: Where the y axes may end, in percent; the first is the papers' own on CIFAR-10.
LIMITS = (20, 60, 100)

#: How training errors are drawn in each form; test errors are bold. "curves" is the form of He et al. 2015, figure 6,
#: "thin_curves" of figure 4, and "train_test", with training errors left and test errors right, of figure 1.
TRAINING = {"curves": "dashed", "thin_curves": "thin", "train_test": "bold"}


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
      train, test: their errors.
      loss: their training loss.
    """

    label: str
    group: str
    depth: int
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
    return Series(label, group, finished[0].result.depth, train, test, loss)


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


@dataclasses.dataclass(frozen=True)
class Panel:
    """A panel of errors over iterations: its heading, and each line's series and error, from first to last."""

    heading: str
    lines: tuple[tuple[Series, Literal["train", "test"]], ...]


def make_panels(series: Sequence[Series], groups: Sequence[str], form: str, evaluated: str = "test") -> list[Panel]:
    """Returns the panels of a figure, from left to right.

    Args:
      series: the lines.
      groups: headings of the panels of "curves" and "thin_curves".
      form: one of `TRAINING`.
      evaluated: what was tested on: "test", or "held-out" for a part of the training set.
    """
    if form == "train_test":
        return [
            Panel("training error", tuple((one, "train") for one in series)),
            Panel(f"{evaluated} error", tuple((one, "test") for one in series)),
        ]
    return [
        Panel(group, tuple(line for one in series if one.group == group for line in ((one, "train"), (one, "test"))))
        for group in groups
    ]


def axis_limits(series: Sequence[Series]) -> tuple[int, ...]:
    """Returns where the rows' y axes end, in percent: one row, or a second one that shows the lower part again.

    The first is that of `limit_above`, for all lines.
    """
    ends = [float(curve.mean[-1]) for curve in _curves(series)]
    limit = limit_above(ends)
    below = limit > LIMITS[0] and any(end <= 0.8 * LIMITS[0] for end in ends)
    return (limit, LIMITS[0]) if below else (limit,)


def limit_above(ends: Sequence[float]) -> int:
    """Returns the least of `LIMITS` of which all lines end at no more than 4/5; the last one where there are none."""
    return next((limit for limit in LIMITS if max(ends, default=100) <= 0.8 * limit), LIMITS[-1])


def last_step(series: Sequence[Series]) -> int:
    """Returns where the x axes end."""
    return max((int(curve.steps[-1]) for curve in _curves(series)), default=1)


def _curves(series: Sequence[Series]) -> list[Curve]:
    return [curve for one in series for curve in (one.train, one.test) if curve.steps.size]
