"""Draws the loss around solutions in the form of Li et al. 2018: contours over a plane, curves along a line."""

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure, FigureBase
from matplotlib.ticker import MaxNLocator

from resnet_jax.errors import UserError
from resnet_jax.report.analysis.nets import Net
from resnet_jax.report.style import INK, MUTED, new_figure, quiet, quiet_colorbar

#: Contours of one picture, evenly apart in the logarithm of the loss.
LEVELS = 25


def draw(nets: Sequence[Net]) -> Figure:
    """Draws a plane for each net that has one, with the same levels, and below loss and error along a line.

    Args:
      nets: each with what `analysis.surface.run_surface` wrote.

    Raises:
      UserError: for a surface of which a part is missing.
    """
    for net in nets:
        if len(net.found["loss"]) < len(net.found["y"]):
            raise UserError(f"{net.label}'s surface is not finished; the command that made it goes on with it")
    planes = [net for net in nets if len(net.found["y"]) > 1]
    columns = max(len(planes), 2)
    figure = new_figure(1.0 + 3.1 * columns, 6.5 if planes else 3.3, "Training loss around the solution")
    bottom: FigureBase = figure
    if planes:
        top, bottom = figure.subfigures(2, 1, squeeze=False, height_ratios=(3.2, 2.8))[:, 0]
        _planes(top.subplots(1, len(planes), sharey=True, squeeze=False)[0], planes, top)
    loss, error = bottom.subplots(1, 2, sharex=True)
    for net in nets:
        middle = len(net.found["y"]) // 2
        for panel, kind in ((loss, "loss"), (error, "error")):
            values = np.array(net.found[kind][middle], float)  # None becomes NaN, a gap
            panel.plot(net.found["x"], values, linewidth=1.7, **net.line)
    quiet(loss, "along the first direction")
    loss.set_yscale("log")
    loss.set_ylabel("training loss")
    quiet(error)
    error.set_ylabel("training error (%)")
    error.set_ylim(0, 100)
    for panel in (loss, error):
        panel.set_xlabel("distance (1: as long as the filters)")
    loss.legend(frameon=False, fontsize=9)
    return figure


def _planes(panels: Sequence[Axes], nets: Sequence[Net], figure: FigureBase) -> None:
    losses = [np.ma.masked_invalid(np.array(net.found["loss"], float)) for net in nets]
    low = max(min(float(z.min()) for z in losses), 1e-4)
    # A plain net's loss far out is astronomical: levels for that would leave none for what is near.
    high = max(2 * low, min(max(float(z.max()) for z in losses), 1e2))
    levels = np.geomspace(low, high, LEVELS)
    for panel, net, z in zip(panels, nets, losses, strict=True):
        x, y = np.array(net.found["x"]), np.array(net.found["y"])
        inside = np.clip(z, low, high)
        filled = panel.contourf(x, y, inside, levels=levels, norm=LogNorm(low, high), cmap="viridis")
        panel.contour(x, y, inside, levels=levels[1:-1:2], colors=INK, linewidths=0.35)
        panel.plot(0, 0, "+", color="white", markersize=8, markeredgewidth=1.4)
        panel.set_aspect("equal")
        for axis in (panel.xaxis, panel.yaxis):
            axis.set_major_locator(MaxNLocator(4))
        quiet(panel, net.label, grid=False)
        panel.set_xlabel("first direction", color=MUTED, fontsize=9)
    panels[0].set_ylabel("second direction", color=MUTED, fontsize=9)
    bar = figure.colorbar(filled, ax=list(panels), shrink=0.9, pad=0.02)
    bar.set_label("training loss")
    ticks = [tick for tick in (1e-3, 1e-2, 0.03, 0.1, 0.3, 1, 3, 10, 30, 100) if low <= tick <= high]
    clipped = any(float(z.max()) > high for z in losses)
    bar.set_ticks(ticks, labels=[f"{tick:g}{'+' if clipped and tick == high else ''}" for tick in ticks])
    quiet_colorbar(bar)
