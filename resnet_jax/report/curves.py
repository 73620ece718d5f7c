"""Training and test error over iterations, in the form of He et al. 2015, figure 6."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, MaxNLocator

from resnet_jax.report.runs import Run
from resnet_jax.report.style import AXIS, COLOURS, GRID, INK, MUTED, save

#: What the y axes may end at, in percent; the first is the papers' own on CIFAR-10.
LIMITS = (20, 60, 100)

_BAND = "#f4f4f1"
_LABEL_POINTS = 9.5
# Inches: of a panel and of what is around it. Laid out by hand, so that labels can be kept apart without drawing first.
_WIDTH, _HEIGHT, _GAP = 3.7, 2.5, 0.42
_LEFT, _BOTTOM, _TOP, _TITLE = 0.75, 0.6, 0.68, 0.35


def plot_curves(runs: Sequence[Run], path_png: Path, path_svg: Path | None = None, title: str = "") -> Figure:
    """Writes `draw_curves` as PNG (200 dpi) and, if a path is given, as SVG. The same runs give the same bytes."""
    figure = draw_curves(runs, title)
    save(figure, path_png, path_svg)
    return figure


def draw_curves(runs: Sequence[Run], title: str = "") -> Figure:
    """A column of panels per group; dashed: training error, bold: test error; one colour per depth.

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

    # Right of each panel is room for the longest name, an arrow and a margin.
    right = 0.1 + 0.09 * (2 + max(map(len, colours), default=0))
    figure, panels = _panels(groups, axis_limits(finished), end, right, _TOP + (_TITLE if title else 0))
    for group, column in zip(groups, panels.T, strict=True):
        lines = [(run, names[run]) for run in names if run.group == group]
        for panel in column:
            for run, name in lines:
                panel.plot(run.train_steps, run.train_errors, "--", color=colours[name], linewidth=0.9)
                panel.plot(run.test_steps, run.test_errors, "-", color=colours[name], linewidth=2.1, label=name)
            _label_ends(panel, lines, colours)
            if not lines:
                panel.text(0.5, 0.5, "no finished run", transform=panel.transAxes, ha="center", color=MUTED)
    _head(figure, title, finished)
    return figure


def series_names(runs: Sequence[Run]) -> dict[Run, str]:
    """What finished runs' lines are called, shallowest first: "20-layer", or labels where depth does not tell apart.

    Runs of one name, such as two seeds, share a colour.
    """
    runs = sorted(runs, key=_depth)
    labels: dict[tuple[str, int], set[str]] = {}
    for run in runs:
        labels.setdefault((run.group, _depth(run)), set()).add(run.label)
    by_depth = all(len(found) == 1 for found in labels.values())
    return {run: f"{_depth(run)}-layer" if by_depth else run.label for run in runs}


def axis_limits(runs: Sequence[Run]) -> tuple[int, ...]:
    """Where the rows' y axes end, in percent: one row, or a second that shows the lower part again.

    A run fits under a limit if it ends at no more than 4/5 of it.
    """
    last = [np.concatenate([run.train_errors[-1:], run.test_errors[-1:]]) for run in runs]
    ends = [errors.max() for errors in last if errors.size]
    limit = next((limit for limit in LIMITS if max(ends, default=100) <= 0.8 * limit), LIMITS[-1])
    below = limit > LIMITS[0] and any(end <= 0.8 * LIMITS[0] for end in ends)
    return (limit, LIMITS[0]) if below else (limit,)


def spread(positions: Sequence[float], gap: float, top: float) -> list[float]:
    """Ascending positions, moved as little as can be (least squares) to be `gap` apart and from 0 to `top`."""
    # Less i * gap, positions that are `gap` apart are ones that do not descend: those that do get their mean.
    blocks: list[list[float]] = []
    for i, position in enumerate(positions):
        blocks.append([position - i * gap])
        while len(blocks) > 1 and np.mean(blocks[-2]) >= np.mean(blocks[-1]):
            last = blocks.pop()
            blocks[-1] += last
    means = [float(np.mean(block)) for block in blocks for _ in block]
    highest = top - gap * (len(means) - 1)
    return [max(0.0, min(mean, highest)) + i * gap for i, mean in enumerate(means)]


def _depth(run: Run) -> int:
    assert run.result is not None
    return run.result.depth


def _panels(
    groups: Sequence[str], limits: Sequence[int], end: int, right: float, top: float
) -> tuple[Figure, np.ndarray]:
    """A figure, and its [limits][groups] empty panels for 0 to `end` iterations; `right` and `top` are inches."""
    width = _LEFT + len(groups) * (_WIDTH + right)
    height = top + len(limits) * _HEIGHT + (len(limits) - 1) * _GAP + _BOTTOM
    figure = Figure(figsize=(width, height), facecolor="white")
    FigureCanvasAgg(figure)
    panels = np.empty((len(limits), len(groups)), object)
    for row, limit in enumerate(limits):
        for column, group in enumerate(groups):
            left = _LEFT + column * (_WIDTH + right)
            bottom = height - top - (row + 1) * _HEIGHT - row * _GAP
            panel = figure.add_axes((left / width, bottom / height, _WIDTH / width, _HEIGHT / height))
            panels[row, column] = panel
            _style(panel, limit, end)
            panel.tick_params(labelleft=column == 0, labelbottom=row == len(limits) - 1)
            if column == 0:
                panel.set_ylabel("error (%)")
                panel.yaxis.set_label_coords(-0.105, 0.5)
            if row == 0:
                panel.set_title(group, loc="left", fontsize=11, fontweight="bold", color=INK, parse_math=False)
            else:
                panel.set_title(f"the same, 0 to {limit} %", loc="left", fontsize=9, color=MUTED)
                panels[0, column].axhspan(0, limit, color=_BAND, linewidth=0, zorder=0)
            if row == len(limits) - 1:
                panel.set_xlabel("iter. (1e4)" if end >= 10_000 else "iter.")
    return figure, panels


def _style(panel: Axes, limit: int, end: int) -> None:
    panel.set_xlim(0, end)
    panel.set_ylim(0, limit)
    panel.yaxis.set_major_locator(MaxNLocator(5, steps=[1, 2, 5, 10]))
    panel.xaxis.set_major_locator(MaxNLocator(7, steps=[1, 2, 5, 10]))
    if end >= 10_000:
        panel.xaxis.set_major_formatter(FuncFormatter(lambda step, _: f"{step / 10_000:g}"))
    panel.grid(color=GRID, linewidth=0.7)
    panel.set_axisbelow(True)
    panel.tick_params(length=0, labelsize=9, labelcolor=MUTED)
    for side, spine in panel.spines.items():
        spine.set_visible(side in ("left", "bottom"))
        spine.set_color(AXIS)


def _label_ends(panel: Axes, lines: Sequence[tuple[Run, str]], colours: dict[str, str]) -> None:
    """Each name once, right of the panel, as high as its test errors end; with an arrow if that is off the axis."""
    ends: dict[str, list[float]] = {}
    for run, name in lines:
        if run.test_errors.size:
            ends.setdefault(name, []).append(run.test_errors[-1])
    heights = sorted((float(np.mean(values)), name) for name, values in ends.items())
    top = panel.get_ylim()[1]
    gap = 1.25 * _LABEL_POINTS / 72 / _HEIGHT * top
    for (height, name), y in zip(heights, spread([h for h, _ in heights], gap, top - gap / 2), strict=True):
        text = name if height <= top else f"{name} \N{UPWARDS ARROW}"
        panel.annotate(
            text,
            (1, y),
            (5, 0),
            panel.get_yaxis_transform(),
            "offset points",
            va="center",
            color=colours[name],
            fontsize=_LABEL_POINTS,
            fontweight="bold",
            parse_math=False,
        )


def _head(figure: Figure, title: str, runs: Sequence[Run]) -> None:
    sets = {run.result.evaluated_on.replace("_", "-") for run in runs if run.result is not None} or {"test"}
    handles = [
        Line2D([], [], color=INK, linestyle="--", linewidth=0.9, label="training error"),
        Line2D([], [], color=INK, linestyle="-", linewidth=2.1, label=f"{' or '.join(sorted(sets))} error"),
    ]
    width, height = figure.get_size_inches()
    figure.text(_LEFT / width, 1 - 0.15 / height, title, va="top", fontsize=12, color=INK, parse_math=False)
    # The legend's own padding is about a tenth of an inch.
    where = ((_LEFT - 0.1) / width, 1 - ((_TITLE if title else 0) + 0.05) / height)
    figure.legend(handles=handles, loc="upper left", bbox_to_anchor=where, ncols=2, frameon=False, fontsize=9)
