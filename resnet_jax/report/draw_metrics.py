"""Draws all that the evaluations of runs measured, over iterations: a panel for each run, a line for each metric."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from matplotlib.figure import Figure

from resnet_jax.report.curve_axes import label_ends, make_axes
from resnet_jax.report.style import COLOURS
from resnet_jax.tasks.task import spelt
from resnet_jax.training.run_record import RunRecord


def draw_metrics(runs: Mapping[str, Path], names: Sequence[str]) -> Figure:
    """Returns the figure.

    Args:
      runs: headings of the panels, and the folders of the runs.
      names: of the metrics, in percent; the first is drawn bold.
    """
    lines = {heading: RunRecord(folder).lines() for heading, folder in runs.items()}
    end = max(line["step"] for found in lines.values() for line in found)
    words = {name: spelt(name.removeprefix("test_")) for name in names}
    colours = {words[name]: COLOURS[k % len(COLOURS)] for k, name in enumerate(names)}
    figure, axes = make_axes(list(runs), [100], end, list(colours))
    axes[0, 0].set_ylabel("%")
    for panel, found in zip(axes[0], lines.values(), strict=True):
        ends = {}
        for k, name in enumerate(names):
            points = [(line["step"], line[name]) for line in found if name in line]
            steps, values = zip(*points, strict=True)
            panel.plot(steps, values, color=colours[words[name]], linewidth=1.2 if k else 2.4)
            ends[words[name]] = values[-1]
        label_ends(panel, ends, colours)
    return figure
