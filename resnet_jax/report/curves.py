"""Draws the papers' figures of curves: means over seeds, with a band of their deviation."""

from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from resnet_jax.report.curve_axes import STYLES, Style, head, label_ends, make_axes
from resnet_jax.report.series import (
    LIMITS,
    TRAINING,
    Curve,
    Series,
    axis_limits,
    colour_indices,
    last_step,
    limit_above,
    make_panels,
)
from resnet_jax.report.style import COLOURS, new_figure, quiet, say

EMPTY = "no finished run"


def draw_curves(
    series: Sequence[Series], groups: Sequence[str], form: str, title: str = "", evaluated: str = "test"
) -> Figure:
    """Draws error over iterations.

    Args:
      series: the lines; none gives empty panels.
      groups, form, evaluated: see `series.make_panels`.
      title: over the panels.
    """
    colours = _colours(series)
    panels = make_panels(series, groups, form, evaluated)
    headings = [panel.heading for panel in panels]
    figure, axes = make_axes(headings, axis_limits(series), last_step(series), list(colours), title)
    styles = {"train": STYLES[TRAINING[form]], "test": STYLES["bold"]}
    for panel, column in zip(panels, axes.T, strict=True):
        for one in column:
            ends = {}
            for line, kind in panel.lines:
                curve: Curve = getattr(line, kind)
                _draw(one, curve, styles[kind], colours[line.label])
                if curve.steps.size:
                    ends[line.label] = float(curve.mean[-1])  # the test error, where both are drawn
            label_ends(one, ends, colours)
            if not panel.lines:
                say(one, EMPTY)
    meanings = {"training error": styles["train"], f"{evaluated} error": styles["test"]}
    head(figure, title, {"mean of the runs": STYLES["bold"]} if form == "train_test" else meanings)
    return figure


def draw_loss_and_error(
    series: Sequence[Series], groups: Sequence[str], title: str = "", evaluated: str = "test"
) -> Figure:
    """Draws training loss and test error over iterations, as He et al. 2016, figures 1, 3 and 6.

    Loss is dashed, in nats on a logarithmic axis on the left; error is bold, on an axis on the right, the same in all
    panels, inside which every line ends: to 20 % as in the paper, or further, see `series.limit_above`.

    Args:
      series: the lines; none gives empty panels.
      groups: headings of the panels, two in a row.
      title: over the panels.
      evaluated: see `series.make_panels`.
    """
    colours = _colours(series)
    columns = min(2, len(groups))
    rows = -(-len(groups) // columns)
    figure = new_figure(5.4 * columns, 3.6 * rows, title)
    panels = figure.subplots(rows, columns, squeeze=False).flat
    ends = [float(one.test.mean[-1]) for one in series if one.test.steps.size]
    limit = limit_above(ends) if ends else LIMITS[0]
    for heading, panel in zip(groups, panels, strict=False):
        quiet(panel, heading)
        errors = panel.twinx()
        quiet(errors, grid=False)
        errors.spines["right"].set_visible(True)
        panel.set_yscale("log")
        panel.set_ylabel("training loss, dashed")
        panel.set_xlabel("iterations")
        panel.xaxis.set_major_locator(MaxNLocator(integer=True))
        errors.set_ylabel(f"{evaluated} error (%), bold")
        errors.set_ylim(0, limit)
        shown = [one for one in series if one.group == heading]
        for one in shown:
            _draw(panel, one.loss, STYLES["dashed"], colours[one.label])
            _draw(errors, one.test, STYLES["bold"], colours[one.label], one.label)
        if shown:
            panel.set_xlim(0, last_step(shown))
            errors.legend(frameon=False, fontsize=9, loc="upper right")
        else:
            say(panel, EMPTY)
    return figure


def _colours(series: Sequence[Series]) -> dict[str, str]:
    return {one.label: COLOURS[i] for one, i in zip(series, colour_indices(series), strict=True)}


def _draw(panel: Axes, curve: Curve, style: Style, colour: str, label: str = "") -> None:
    lines = panel.plot(curve.steps, curve.mean, style[0], color=colour, linewidth=style[1], label=label)
    if curve.steps.size == 1:  # a run that was evaluated once has a point, which no line shows
        lines[0].set(marker="o", markersize=2 + 2 * style[1], clip_on=False)
    if curve.std.any():
        low, high = curve.mean - curve.std, curve.mean + curve.std
        panel.fill_between(curve.steps, low, high, color=colour, alpha=0.18, linewidth=0)
