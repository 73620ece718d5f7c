"""Draws a reliability diagram and a confusion matrix of a test."""

from pathlib import Path

import numpy as np
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure

from resnet_jax.errors import writing
from resnet_jax.evaluation.evaluate_runs import EvaluatedRuns
from resnet_jax.evaluation.evaluation_files import EVALUATIONS
from resnet_jax.evaluation.measures import calibration, confusion
from resnet_jax.report.style import AXIS, COLOURS, INK, MUTED, new_figure, quiet, quiet_colorbar, save

#: Up to so many classes, a confusion matrix has its numbers written in it.
WRITTEN = 20


def draw_evaluation(tested: EvaluatedRuns, workdir: str | Path) -> tuple[Path, Path]:
    """Draws evaluations/METRIC_calibration.png and METRIC_confusion.png in a run's folder and returns their paths.

    Raises:
      UserError: if the folder cannot be written to.
    """
    folder = Path(workdir).expanduser() / EVALUATIONS
    metric = tested.result.metric
    paths = folder / f"{metric}_calibration.png", folder / f"{metric}_confusion.png"
    with writing(folder):
        folder.mkdir(exist_ok=True)
        save(reliability_figure(tested), paths[0])
        save(confusion_figure(tested), paths[1])
    return paths


def reliability_figure(tested: EvaluatedRuns) -> Figure:
    """Draws accuracy against confidence in bins (Guo et al. 2017, figure 1), and how many images each bin holds."""
    found = calibration(tested.scores, tested.labels)
    width = found.edges[1] - found.edges[0]
    middle = found.edges[:-1] + width / 2
    figure = new_figure(5.2, 5.6, _title(tested))
    top, bottom = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1))
    top.plot([0, 1], [0, 1], color=AXIS, linewidth=1, linestyle=(0, (4, 3)), label="as confident as right")
    top.bar(middle, np.nan_to_num(100 * found.accuracy) / 100, 0.92 * width, color=COLOURS[0], alpha=0.35)
    there = found.counts > 0
    top.plot(
        found.confidence[there], found.accuracy[there], "o-", color=COLOURS[0], markersize=4, linewidth=1.4, label="net"
    )
    top.set_ylim(0, 1.02)
    top.set_ylabel("share that is right")
    top.legend(frameon=False, fontsize=9, loc="upper left")
    quiet(top, f"expected calibration error {found.ece:.2f} %")
    bottom.bar(middle, found.counts / found.counts.sum(), 0.92 * width, color=MUTED)
    bottom.set_ylabel("share of images")
    bottom.set_xlabel("confidence: score of the first guess")
    bottom.set_xlim(0, 1)
    quiet(bottom)
    return figure


def confusion_figure(tested: EvaluatedRuns) -> Figure:
    """Draws images by class (rows) and first guess (columns), in percent of the class."""
    counts = confusion(tested.scores, tested.labels)
    classes = len(counts)
    share = 100 * counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    side = 6.4 if classes <= WRITTEN else 7.2
    figure = new_figure(side + 0.8, side, _title(tested))
    panel = figure.subplots()
    # Logarithmic: the diagonal is near 100, and the confusions are near 1.
    low = max(0.05, 100 / max(int(counts.sum(axis=1).max()), 1) / 2)
    image = panel.imshow(
        np.ma.masked_equal(share, 0), cmap="viridis_r", norm=LogNorm(low, 100), interpolation="nearest"
    )
    panel.set_xlabel("first guess")
    panel.set_ylabel("class")
    quiet(panel, "percent of each class's images", grid=False)
    if classes <= WRITTEN:
        panel.set_xticks(range(classes))
        panel.set_yticks(range(classes))
        for row, column in np.argwhere(counts):
            ink = "white" if share[row, column] > 20 else INK
            text = f"{share[row, column]:.{0 if share[row, column] >= 99.95 else 1}f}"
            panel.text(column, row, text, ha="center", va="center", fontsize=8, color=ink)
    bar = figure.colorbar(image, ax=panel, shrink=0.85, pad=0.02)
    bar.set_ticks([tick for tick in (0.1, 1, 10, 100) if tick >= low])
    bar.ax.yaxis.set_major_formatter("{x:g} %")
    quiet_colorbar(bar)
    return figure


def _title(tested: EvaluatedRuns) -> str:
    result = tested.result
    names = ", ".join(dict.fromkeys(result.models))
    count = f" ({len(result.models)} runs)" if len(result.models) > 1 else ""
    return f"{names}{count}: {result.protocol.replace('_', ' ')}, {result.examples:,} {result.evaluated_on} images"
