"""Draws figure 7 of He et al. 2015: standard deviation of each layer's response, in layer order and ranked."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from resnet_jax.analysis.responses import FILE, read_responses
from resnet_jax.errors import UserError
from resnet_jax.report.analysis.nets import Net
from resnet_jax.report.style import new_figure, quiet


def mean_responses(folders: Sequence[Path]) -> list[dict[str, Any]]:
    """Returns the mean over runs of one net, as the list of `analysis.responses.layer_responses`.

    Raises:
      UserError: if a file cannot be read, or they are of different layers.
    """
    found = [read_responses(folder / FILE) for folder in folders]
    layers = [[entry["layer"] for entry in one] for one in found]
    if any(one != layers[0] for one in layers):
        raise UserError(f"{FILE} of {', '.join(map(str, folders))} are not of the same layers")
    stds = np.mean([[entry["std"] for entry in one] for one in found], axis=0)
    return [{"layer": layer, "std": std} for layer, std in zip(layers[0], stds, strict=True)]


def draw(nets: Sequence[Net]) -> Figure:
    """Draws each net's responses twice, in layer order and ranked; plain nets dashed, as in the paper.

    Args:
      nets: each with the list of `analysis.responses.layer_responses`.
    """
    figure = new_figure(7.2, 5.6, "Standard deviation of layer responses")
    panels = figure.subplots(2, 1, sharey=True)
    for panel, ranked in zip(panels, (False, True), strict=True):
        for net in nets:
            values = [entry["std"] for entry in net.found]
            shown = sorted(values, reverse=True) if ranked else values
            panel.plot(range(1, len(shown) + 1), shown, linewidth=1.5, **net.line)
        quiet(panel, "ranked by magnitude" if ranked else "in layer order")
        panel.set_xlabel("rank" if ranked else "layer")
        panel.set_ylabel("std")
        panel.xaxis.set_major_locator(MaxNLocator(integer=True))
        panel.set_xlim(left=1)
    panels[0].set_ylim(bottom=0)
    panels[0].legend(frameon=False, fontsize=9, ncols=2, loc="best")
    return figure
