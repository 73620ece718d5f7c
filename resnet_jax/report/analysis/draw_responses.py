"""Draws figure 7 of He et al. 2015: standard deviation of each layer's response, in layer order and ranked."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from resnet_jax.analysis.responses import FILE
from resnet_jax.errors import UserError
from resnet_jax.report.analysis.nets import Net
from resnet_jax.report.style import COLOURS, MUTED, new_figure, quiet


def read_responses(folder: Path) -> list[float] | None:
    """Returns each layer's standard deviation, None if the run was not measured.

    Raises:
      UserError: if the file cannot be read.
    """
    path = folder / FILE
    if not path.exists():
        return None
    try:
        return [float(layer["std"]) for layer in json.loads(path.read_text())]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"cannot read {path}: {error}") from error


def mean_responses(folders: Sequence[Path]) -> np.ndarray | None:
    """Returns the [layers] mean over the runs of one net that were measured, None if none was.

    Raises:
      UserError: if a file cannot be read, or they are of different nets.
    """
    found = [values for folder in folders if (values := read_responses(folder)) is not None]
    if len({len(values) for values in found}) > 1:
        raise UserError(f"{FILE} of {', '.join(map(str, folders))} are not of the same layers")
    return np.mean(found, axis=0) if found else None


def draw_responses(nets: Mapping[str, Sequence[float] | np.ndarray], title: str = "") -> Figure:
    """Draws each net's responses twice, in layer order and ranked; plain nets dashed, as in the paper.

    Args:
      nets: label to [layers] standard deviations.
      title: over the panels.
    """
    figure = new_figure(7.2, 5.6, title)
    panels = figure.subplots(2, 1, sharey=True)
    for panel, ranked in zip(panels, (False, True), strict=True):
        for i, (label, values) in enumerate(nets.items()):
            shown = np.sort(values)[::-1] if ranked else values
            dashes = (0, (4, 1.5)) if label.startswith("plain") else "-"
            colour = COLOURS[i % len(COLOURS)]
            panel.plot(range(1, len(shown) + 1), shown, linewidth=1.5, linestyle=dashes, color=colour, label=label)
        quiet(panel, "ranked by magnitude" if ranked else "in layer order")
        panel.set_xlabel("rank" if ranked else "layer")
        panel.set_ylabel("std")
        panel.xaxis.set_major_locator(MaxNLocator(integer=True))
        if nets:
            panel.set_xlim(left=1)
        else:
            panel.text(0.5, 0.5, "no measured run", transform=panel.transAxes, ha="center", color=MUTED)
    panels[0].set_ylim(bottom=0)
    if nets:
        panels[0].legend(frameon=False, fontsize=9, ncols=2, loc="best")
    return figure


def draw(nets: Sequence[Net]) -> Figure:
    """Draws the nets of a figure, each with the list of `analysis.responses.layer_responses`."""
    found = {net.label: [entry["std"] for entry in net.found] for net in nets}
    return draw_responses(found, "Standard deviation of layer responses")
