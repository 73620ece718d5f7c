"""Draws training and test error over iterations, in the form of He et al. 2015, figure 6."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from resnet_jax.report.panels import TEST, TRAIN, head, label_ends, limits_for, make_panels
from resnet_jax.report.run_data import Run
from resnet_jax.report.style import COLOURS, MUTED, save


def plot_curves(runs: Sequence[Run], path_png: Path, path_svg: Path | None = None, title: str = "") -> Figure:
    """Writes `draw_curves` as PNG (200 dpi) and, if a path is given, as SVG. The same runs give the same bytes."""
    figure = draw_curves(runs, title)
    save(figure, path_png, path_svg)
    return figure


def draw_curves(runs: Sequence[Run], title: str = "") -> Figure:
    """Draws a column of panels per group; dashed: training error, bold: test error; one colour per depth.

    The panels of a row have the same axes, so that groups compare at a glance. Where some nets end near 0 and others
    far above, a second row shows 0 to 20 %, the papers' own axis, again.

    Args:
      runs: groups stand from left to right as they first appear. Unfinished runs are left out.
      title: over the panels.
    """
    groups = list(dict.fromkeys(run.group for run in runs)) or [""]
    finished = [run for run in runs if run.result is not None]
    names = series_names(finished)
    colours = {name: COLOURS[i % len(COLOURS)] for i, name in enumerate(dict.fromkeys(names.values()))}
    steps = [int(line[-1]) for run in finished for line in (run.train_steps, run.test_steps) if line.size]
    end = max(steps, default=1)

    figure, panels = make_panels(groups, axis_limits(finished), end, list(colours), title)
    for group, column in zip(groups, panels.T, strict=True):
        lines = [(run, names[run]) for run in names if run.group == group]
        for panel in column:
            for run, name in lines:
                panel.plot(run.train_steps, run.train_errors, TRAIN[0], color=colours[name], linewidth=TRAIN[1])
                panel.plot(run.test_steps, run.test_errors, TEST[0], color=colours[name], linewidth=TEST[1], label=name)
            ends: dict[str, list[float]] = {}
            for run, name in lines:
                if run.test_errors.size:
                    ends.setdefault(name, []).append(run.test_errors[-1])
            label_ends(panel, {name: float(np.mean(values)) for name, values in ends.items()}, colours)
            if not lines:
                panel.text(0.5, 0.5, "no finished run", transform=panel.transAxes, ha="center", color=MUTED)
    sets = {run.result.evaluated_on.replace("_", "-") for run in finished if run.result is not None} or {"test"}
    head(figure, title, {"training error": TRAIN, f"{' or '.join(sorted(sets))} error": TEST})
    return figure


def series_names(runs: Sequence[Run]) -> dict[Run, str]:
    """Returns the names of runs' lines, shallowest first: "20-layer", or their labels if nets share a depth.

    Runs of one name, such as two seeds, share a colour.
    """
    runs = sorted(runs, key=_depth)
    labels: dict[tuple[str, int], set[str]] = {}
    for run in runs:
        labels.setdefault((run.group, _depth(run)), set()).add(run.label)
    by_depth = all(len(found) == 1 for found in labels.values())
    return {run: f"{_depth(run)}-layer" if by_depth else run.label for run in runs}


def axis_limits(runs: Sequence[Run]) -> tuple[int, ...]:
    """Returns where the rows' y axes end, in percent: see `panels.limits_for`."""
    last = [np.concatenate([run.train_errors[-1:], run.test_errors[-1:]]) for run in runs]
    return limits_for([errors.max() for errors in last if errors.size])


def _depth(run: Run) -> int:
    assert run.result is not None
    return run.result.depth
