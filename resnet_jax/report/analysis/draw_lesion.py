"""Draws the error with units removed or exchanged, in the form of Veit et al. 2016, figures 3 and 5."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from resnet_jax.report.analysis.nets import Net
from resnet_jax.report.style import new_figure, quiet


def draw(nets: Sequence[Net]) -> Figure:
    """Draws three panels: one unit removed, several removed, pairs exchanged; plain nets dashed.

    Args:
      nets: each with what `analysis.lesion.run_lesion` wrote.
    """
    error = f"{' or '.join(dict.fromkeys(net.evaluated_on for net in nets))} error"
    figure = new_figure(11.5, 3.9, f"{error.capitalize()} with units removed or exchanged")
    single, several, exchanged = figure.subplots(1, 3, sharey=True)
    for i, net in enumerate(nets):
        shift = 0.12 * (i - (len(nets) - 1) / 2)
        _single(single, net)
        _counts(several, net, net.found["removed"], shift)
        _counts(exchanged, net, net.found["exchanged"], shift)
    quiet(single, "one unit removed")
    single.set_xlabel("unit (circle: changes the shape;\ndotted: the whole net)")
    single.set_ylabel(f"{error} (%)")
    single.set_ylim(0, 100)
    quiet(several, "several removed at random")
    several.set_xlabel("units removed (line: mean; dots: draws)")
    quiet(exchanged, "pairs exchanged at random")
    exchanged.set_xlabel("exchanges (line: mean; dots: draws)")
    for panel in (single, several, exchanged):
        panel.xaxis.set_major_locator(MaxNLocator(integer=True))
        panel.set_xlim(left=0)
    handles, labels = several.get_legend_handles_labels()
    figure.legend(
        handles, labels, loc="outside upper right", ncols=len(nets), frameon=False, fontsize=9, handlelength=2.6
    )
    return figure


def _single(panel: Axes, net: Net) -> None:
    entries = net.found["single"]
    at = np.arange(1, len(entries) + 1)
    # A unit that cannot be removed, one that changes the shape of a plain net, leaves a gap.
    errors = np.array([np.nan if entry["error"] is None else entry["error"] for entry in entries])
    panel.plot(at, errors, linewidth=1.4, marker=".", markersize=5, **net.line)
    changes = np.array([entry["changes_shape"] for entry in entries])
    panel.plot(at[changes], errors[changes], "o", color=net.colour, markerfacecolor="white", markersize=6)
    panel.axhline(net.found["error"], color=net.colour, linewidth=0.9, linestyle=":", zorder=1)


def _counts(panel: Axes, net: Net, entries: Sequence[dict[str, Any]], shift: float) -> None:
    """Plots every draw as a dot, moved by `shift` so that nets do not hide each other, and their mean as a line."""
    counts = [0, *(entry["count"] for entry in entries)]
    errors = [[net.found["error"]], *(entry["errors"] for entry in entries)]
    for count, values in zip(counts, errors, strict=True):
        panel.plot([count + shift] * len(values), values, "o", color=net.colour, alpha=0.3, markersize=3, zorder=1,
                   markeredgewidth=0)  # fmt: skip
    panel.plot(counts, [float(np.mean(values)) for values in errors], linewidth=1.8, **net.line)
