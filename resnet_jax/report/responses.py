"""Figure 7 of He et al. 2015: standard deviation of each layer's response, in order of layers and ranked."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from resnet_jax.errors import UserError
from resnet_jax.report.panels import COLOURS, GRID, INK, MUTED

#: In a run's folder: a list of {"layer": name, "std": standard deviation} in the order of layers.
FILE = "responses.json"


def read_responses(folder: Path) -> list[float] | None:
    """Each layer's standard deviation, None if the run's were not measured.

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
    """[layers] mean over the runs of one net that were measured, None if none was.

    Raises:
      UserError: if a file cannot be read, or they are of different nets.
    """
    found = [values for folder in folders if (values := read_responses(folder)) is not None]
    if len({len(values) for values in found}) > 1:
        raise UserError(f"{FILE} of {', '.join(map(str, folders))} are not of the same layers")
    return np.mean(found, axis=0) if found else None


def draw_responses(nets: Mapping[str, np.ndarray], title: str = "") -> Figure:
    """Draws each net's responses twice; plain nets dashed, as in the paper.

    Args:
      nets: label to [layers] standard deviations.
      title: over the panels.
    """
    figure = Figure(figsize=(7.2, 6.4), facecolor="white", layout="constrained")
    FigureCanvasAgg(figure)
    figure.suptitle(title, x=0.02, ha="left", fontsize=12, color=INK)
    headings = ("layer index (original)", "layer index (sorted by magnitude)")
    for panel, heading in zip(figure.subplots(2, 1), headings, strict=True):
        for i, (label, values) in enumerate(nets.items()):
            shown = values if heading.endswith("original)") else np.sort(values)[::-1]
            dashes = "--" if label.startswith("plain") else "-"
            panel.plot(np.arange(1, len(shown) + 1), shown, dashes, color=COLOURS[i % len(COLOURS)], label=label)
        panel.set_xlabel(heading)
        panel.set_ylabel("std")
        panel.set_ylim(bottom=0)
        panel.grid(color=GRID, linewidth=0.7)
        panel.spines[["top", "right"]].set_visible(False)
        if nets:
            panel.legend(frameon=False, fontsize=9)
        else:
            panel.text(0.5, 0.5, "no measured run", transform=panel.transAxes, ha="center", color=MUTED)
    return figure
