"""Draws norms of the gradients over the depth of plain and residual nets, at several moments of training."""

from collections.abc import Sequence

import matplotlib
import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from resnet_jax.report.analysis.nets import Net
from resnet_jax.report.style import new_figure, quiet

#: The norms in the record, and what the rows of panels are called.
ROWS = (
    ("kernels", "norm of the gradient\nwith respect to kernels"),
    ("outputs", "norm of the gradient\nwith respect to outputs"),
)


def draw(nets: Sequence[Net]) -> Figure:
    """Draws a column for each net and a line for each moment, from dark to light; a row shares its axes.

    Args:
      nets: each with what `analysis.gradients.run_gradients` wrote.
    """
    figure = new_figure(1.2 + 2.6 * len(nets), 5.4, "Gradient norms by layer, through training")
    panels = figure.subplots(len(ROWS), len(nets), sharey="row", sharex="col", squeeze=False)
    for row, (kind, heading) in zip(panels, ROWS, strict=True):
        for panel, net in zip(row, nets, strict=True):
            steps, norms = net.found["steps"], np.array(net.found[kind], float)
            shades = matplotlib.colormaps["viridis"](np.linspace(0, 0.88, len(steps)))
            for step, values, shade in zip(steps, norms, shades, strict=True):
                # Zero has no place on the axis: a layer without any gradient leaves a gap.
                values = np.where(values > 0, values, np.nan)
                panel.plot(range(1, len(values) + 1), values, color=shade, linewidth=1.3, label=f"{step:,}")
            panel.set_yscale("log")
            quiet(panel, net.label if kind == ROWS[0][0] else "")
            if norms.shape[1] > 1:
                panel.set_xlim(1, norms.shape[1])
            panel.xaxis.set_major_locator(MaxNLocator(integer=True))
        row[0].set_ylabel(heading, fontsize=9)
    for panel in panels[-1]:
        panel.set_xlabel("layer")
        panel.legend(frameon=False, fontsize=7.5, title="steps done", title_fontsize=7.5, handlelength=1.2, ncols=2)
    return figure
