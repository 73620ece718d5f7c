"""Draws some images of a test beside their masks and what the net sees."""

from pathlib import Path

import jax.numpy as jnp
import numpy as np
from matplotlib.figure import Figure

from resnet_jax.data.augment import normalize
from resnet_jax.data.imagenet.decode import DecodeError
from resnet_jax.data.imagenet.source import RecordError
from resnet_jax.data.segmentation.pipeline import SegmentationPipeline
from resnet_jax.errors import writing
from resnet_jax.evaluation.evaluation_files import EVALUATIONS
from resnet_jax.evaluation.open_run import OpenRun
from resnet_jax.evaluation.segmentation import SegmentationResult, probabilities
from resnet_jax.report.overlay import colour_classes
from resnet_jax.report.style import INK, new_figure

#: Images that are shown, evenly spread over the set.
SHOWN = 6


def draw_segmentation(run: OpenRun, result: SegmentationResult, workdir: str | Path) -> Path:
    """Draws evaluations/PROTOCOL.png in a run's folder and returns its path.

    Raises:
      UserError: if the folder cannot be written to.
    """
    path = Path(workdir).expanduser() / EVALUATIONS / f"{result.protocol}.png"
    title = f"{result.model} on {result.dataset}: mean IoU {result.metrics['test_mean_iou']:.1f} %"
    figure = segmentation_figure(examples(run, SHOWN), title)
    with writing(path):
        path.parent.mkdir(exist_ok=True)
        figure.savefig(path, dpi=80, metadata={"Software": None})
    return path


def examples(run: OpenRun, count: int) -> list[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Returns (image, labels, the net's labels) of so many images, uint8, without those that cannot be read."""
    pipeline, variables = run.trainer.pipeline, run.variables
    assert isinstance(pipeline, SegmentationPipeline)
    pairs, found = pipeline.test_loader.pairs, []
    mean, std = pipeline.test["mean"], pipeline.test["std"]
    for index in np.unique(np.linspace(0, len(pairs) - 1, count).round().astype(int)).tolist():
        try:
            pixels, labels = pairs.pair(index)
        except (RecordError, DecodeError):
            continue
        images = normalize(jnp.asarray(pixels[None]), mean, std)
        guesses = np.asarray(jnp.argmax(probabilities(run.trainer.model, variables, images)[0], axis=-1))
        found.append((pixels, labels, guesses.astype(np.uint8)))
    return found


def segmentation_figure(shown: list[tuple[np.ndarray, np.ndarray, np.ndarray]], title: str) -> Figure:
    """Draws a column for each image: itself, with its mask, and with the net's."""
    figure = new_figure(1.6 * max(len(shown), 1) + 0.6, 5.2, title)
    panels = figure.subplots(3, max(len(shown), 1), squeeze=False)
    for panel in panels.flat:
        panel.set_xticks([])
        panel.set_yticks([])
        panel.spines[:].set_visible(False)
    for name, row in zip(("image", "mask", "net"), panels, strict=True):
        row[0].set_ylabel(name, color=INK)
    for column, (pixels, labels, guesses) in enumerate(shown):
        pictures = (pixels, colour_classes(pixels, labels), colour_classes(pixels, guesses))
        for panel, picture in zip(panels[:, column], pictures, strict=True):
            panel.imshow(picture)
    return figure
