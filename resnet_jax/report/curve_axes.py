"""Axes of error over iterations, with the labels of their lines and a legend."""

from collections.abc import Mapping, Sequence
from typing import Literal

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, MaxNLocator

from resnet_jax.report.style import INK, MUTED, quiet

#: How a line looks: dashes, and width in points.
Style = tuple[Literal["-", "--"], float]
STYLES: dict[str, Style] = {"dashed": ("--", 0.9), "thin": ("-", 0.8), "bold": ("-", 2.1)}

_BAND = "#f4f4f1"
_LABEL_POINTS = 9.5
# Inches, of a panel and around it. Laid out by hand: labels can then be kept apart before anything is drawn.
_WIDTH, _HEIGHT, _GAP = 3.7, 2.5, 0.42
_LEFT, _BOTTOM, _TOP, _TITLE = 0.75, 0.6, 0.68, 0.35
# A title's letters are about as wide.
_LETTER = 0.09


def keep_apart(positions: Sequence[float], gap: float, top: float) -> list[float]:
    """Returns ascending positions, moved as little as possible (least squares) to be `gap` apart, from 0 to `top`."""
    # With i * gap subtracted, positions must not descend; those that do are replaced by their mean.
    blocks: list[list[float]] = []
    for i, position in enumerate(positions):
        blocks.append([position - i * gap])
        while len(blocks) > 1 and np.mean(blocks[-2]) >= np.mean(blocks[-1]):
            last = blocks.pop()
            blocks[-1] += last
    means = [float(np.mean(block)) for block in blocks for _ in block]
    highest = top - gap * (len(means) - 1)
    return [max(0.0, min(mean, highest)) + i * gap for i, mean in enumerate(means)]


def make_axes(
    groups: Sequence[str], limits: Sequence[int], end: int, names: Sequence[str], title: str = ""
) -> tuple[Figure, np.ndarray]:
    """Returns a figure, and its [limits][groups] empty panels.

    Args:
      groups: headings of the columns.
      limits: where the rows' y axes end, in percent.
      end: last iteration.
      names: all names that `label_ends` will write, for which there must be room.
      title: what `head` will write.
    """
    # Right of each panel is room for the longest name, an arrow and a margin.
    right = 0.1 + 0.09 * (2 + max(map(len, names), default=0))
    top = _TOP + (_TITLE if title else 0)
    width = max(_LEFT + len(groups) * (_WIDTH + right), _LEFT + _LETTER * len(title))
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
            quiet(panel)
            panel.set_xlim(0, end)
            panel.set_ylim(0, limit)
            panel.xaxis.set_major_locator(MaxNLocator(7, steps=[1, 2, 5, 10], integer=end < 10_000))
            panel.yaxis.set_major_locator(MaxNLocator(5, steps=[1, 2, 5, 10]))
            if end >= 10_000:
                panel.xaxis.set_major_formatter(FuncFormatter(lambda step, _: f"{step / 10_000:g}"))
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


def label_ends(panel: Axes, ends: Mapping[str, float], colours: Mapping[str, str]) -> None:
    """Writes each name once, right of the panel, where its line ends; with an arrow if that is off the axis.

    Args:
      panel: of `make_axes`.
      ends: name to where its line ends, in percent.
      colours: of the names.
    """
    heights = sorted((height, name) for name, height in ends.items())
    top = panel.get_ylim()[1]
    gap = 1.25 * _LABEL_POINTS / 72 / _HEIGHT * top
    for (height, name), y in zip(heights, keep_apart([h for h, _ in heights], gap, top - gap / 2), strict=True):
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


def head(figure: Figure, title: str, styles: Mapping[str, Style]) -> None:
    """Writes title and legend.

    Args:
      figure: of `make_axes`.
      title: over the panels, may be empty.
      styles: what a line means, to its dashes and width.
    """
    handles = [
        Line2D([], [], color=INK, linestyle=dashes, linewidth=width, label=name)
        for name, (dashes, width) in styles.items()
    ]
    width, height = figure.get_size_inches()
    figure.text(_LEFT / width, 1 - 0.15 / height, title, va="top", fontsize=12, color=INK, parse_math=False)
    # The legend's own padding is about a tenth of an inch.
    where = ((_LEFT - 0.1) / width, 1 - ((_TITLE if title else 0) + 0.05) / height)
    figure.legend(handles=handles, loc="upper left", bbox_to_anchor=where, ncols=2, frameon=False, fontsize=9)
