"""Layer responses in the form of He et al. 2015, figure 7."""

from collections.abc import Sequence

from matplotlib.figure import Figure

from resnet_jax.report.analysis.nets import Net
from resnet_jax.report.style import new_figure, quiet


def draw(nets: Sequence[Net]) -> Figure:
    """Standard deviations of the layers' responses: above in layer order, below ranked; plain nets dashed.

    Args:
      nets: each with the list of `analysis.responses.layer_responses`.
    """
    figure = new_figure(7.2, 5.6, "Standard deviation of layer responses")
    panels = figure.subplots(2, 1, sharey=True)
    for panel, ranked in zip(panels, (False, True), strict=True):
        for net in nets:
            stds = [entry["std"] for entry in net.found]
            stds = sorted(stds, reverse=True) if ranked else stds
            panel.plot(range(1, len(stds) + 1), stds, linewidth=1.5, **net.line)
        quiet(panel, "ranked by magnitude" if ranked else "in layer order")
        panel.set_xlabel("rank" if ranked else "layer")
        panel.set_ylabel("std")
        panel.set_xlim(left=1)
    panels[0].set_ylim(bottom=0)
    panels[0].legend(frameon=False, fontsize=9, ncols=2, loc="best")
    return figure
