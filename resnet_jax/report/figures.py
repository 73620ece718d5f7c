"""Draws the papers' figures of curves: means over seeds, with a band of their deviation."""

from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from resnet_jax.report.panels import (
    TEST,
    THIN_TRAIN,
    TRAIN,
    Style,
    head,
    label_ends,
    limits_for,
    make_panels,
)
from resnet_jax.report.series import Curve, Series, colour_indices
from resnet_jax.report.style import COLOURS, MUTED, new_figure, quiet

#: Where the axis of errors ends in figures of loss and error, in percent, as in the 2016 paper.
ERROR_LIMIT = 20


def draw_series(
    series: Sequence[Series], groups: Sequence[str], form: str, title: str = "", evaluated: str = "test"
) -> Figure:
    """Draws error over iterations.

    Args:
      series: the lines; none gives empty panels.
      groups: headings of the panels of "curves" and "thin_curves", from left to right.
      form: "curves", as He et al. 2015, figure 6: training dashed, test bold; "thin_curves", as figure 4: training
        thin, validation bold; "train_test", as figure 1: training errors left, test errors right.
      title: over the panels.
      evaluated: what was tested on: "test", or "held-out" for a part of the training set.
    """
    colours = {one.label: COLOURS[i] for one, i in zip(series, colour_indices(series), strict=True)}
    end = max(
        (int(curve.steps[-1]) for one in series for curve in (one.train, one.test) if curve.steps.size), default=1
    )
    ends = [float(curve.mean[-1]) for one in series for curve in (one.train, one.test) if curve.steps.size]
    split = form == "train_test"
    headings = ["training error", f"{evaluated} error"] if split else list(groups)
    figure, panels = make_panels(headings, limits_for(ends), end, list(colours), title)
    train: Style = TEST if split else {"curves": TRAIN, "thin_curves": THIN_TRAIN}[form]
    for heading, column in zip(headings, panels.T, strict=True):
        shown = [one for one in series if split or one.group == heading]
        for panel in column:
            last = {}
            for one in shown:
                lines = [(one.train, train), (one.test, TEST)]
                if split:
                    lines = lines[:1] if heading == headings[0] else lines[1:]
                for curve, style in lines:
                    _draw(panel, curve, style, colours[one.label])
                if lines[-1][0].steps.size:
                    last[one.label] = float(lines[-1][0].mean[-1])
            label_ends(panel, last, colours)
            if not shown:
                panel.text(0.5, 0.5, "no finished run", transform=panel.transAxes, ha="center", color=MUTED)
    head(figure, title, {"mean of the runs": TEST} if split else {"training error": train, f"{evaluated} error": TEST})
    return figure


def draw_loss_and_error(
    series: Sequence[Series], groups: Sequence[str], title: str = "", evaluated: str = "test"
) -> Figure:
    """Draws training loss and test error over iterations, as He et al. 2016, figures 1, 3 and 6.

    Loss is dashed, in nats on a logarithmic axis on the left; error is bold, on an axis on the right that ends at
    `ERROR_LIMIT`, or higher where every error that a line ends at is above it.

    Args:
      series: the lines; none gives empty panels.
      groups: headings of the panels, two in a row.
      title: over the panels.
      evaluated: see `draw_series`.
    """
    colours = {one.label: COLOURS[i] for one, i in zip(series, colour_indices(series), strict=True)}
    columns = min(2, len(groups))
    rows = -(-len(groups) // columns)
    figure = new_figure(5.4 * columns, 3.6 * rows, title)
    panels = figure.subplots(rows, columns, squeeze=False).flat
    ends = [float(one.test.mean[-1]) for one in series if one.test.steps.size]
    limit = ERROR_LIMIT if not ends or min(ends) < ERROR_LIMIT else 100
    for heading, panel in zip(groups, panels, strict=False):
        quiet(panel, heading)
        errors = panel.twinx()
        quiet(errors, grid=False)
        errors.spines["right"].set_visible(True)
        panel.set_yscale("log")
        panel.set_ylabel("training loss, dashed")
        panel.set_xlabel("iterations")
        errors.set_ylabel(f"{evaluated} error (%), bold")
        errors.set_ylim(0, limit)
        shown = [one for one in series if one.group == heading]
        for one in shown:
            _draw(panel, one.loss, TRAIN, colours[one.label])
            _draw(errors, one.test, TEST, colours[one.label], one.label)
        if shown:
            panel.set_xlim(0, max(int(one.loss.steps[-1]) for one in shown))
            errors.legend(frameon=False, fontsize=9, loc="upper right")
        else:
            panel.text(0.5, 0.5, "no finished run", transform=panel.transAxes, ha="center", color=MUTED)
    return figure


def _draw(panel: Axes, curve: Curve, style: Style, colour: str, label: str = "") -> None:
    panel.plot(curve.steps, curve.mean, style[0], color=colour, linewidth=style[1], label=label)
    if curve.std.any():
        low, high = curve.mean - curve.std, curve.mean + curve.std
        panel.fill_between(curve.steps, low, high, color=colour, alpha=0.18, linewidth=0)
