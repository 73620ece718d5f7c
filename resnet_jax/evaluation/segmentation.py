"""Tests a run that segments: whole images, also mirrored and at several sizes, the probabilities averaged."""

import dataclasses
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from resnet_jax.config import config_hash
from resnet_jax.data.segmentation.pipeline import SegmentationPipeline
from resnet_jax.errors import UserError, unknown_name
from resnet_jax.evaluation.evaluation_files import EVALUATIONS, write_tables
from resnet_jax.evaluation.open_run import OpenRun
from resnet_jax.evaluation.scoring import Report, silent
from resnet_jax.tasks.segmentation import Segmentation
from resnet_jax.training.distributed import batch_sharded, is_chief, replicated
from resnet_jax.training.result import commit, hardware, versions

#: Ways of showing an image: as it is, mirrored too, and both at several sizes.
PROTOCOLS = ("whole_image", "mirrored", "multi_scale")

#: Factors on the image's size in multi-scale testing (Chen et al. 2017, section 4.2).
SCALES = (0.5, 0.75, 1.0, 1.25, 1.5, 1.75)

#: The least probability that is told from zero.
LEAST = 1e-30


@dataclasses.dataclass(frozen=True)
class SegmentationResult:
    """Holds the result of a test over `examples` images, each pixel that has a label counted once.

    Attributes:
      model, dataset: names.
      protocol: one of `PROTOCOLS`.
      scales: factors on the size of the images.
      evaluated_on: "test", "validation", or "held_out" for a part of the training set.
      step: steps that the net was trained for.
      unreadable: images among them that could not be read, and were shown grey.
      metrics: see `tasks.segmentation.Segmentation.eval_metrics`.
      config_hash: of the run.
      commit, versions, hardware: of the test, see the functions of `training.result`.
    """

    model: str
    dataset: str
    protocol: str
    scales: tuple[float, ...]
    evaluated_on: str
    step: int
    examples: int
    unreadable: int
    metrics: dict[str, float]
    config_hash: str
    commit: str
    versions: dict[str, str]
    hardware: dict[str, Any]


def evaluate_segmentation(run: OpenRun, protocol: str = "whole_image", scales: Sequence[float] = (),
                          report: Report = silent) -> tuple[SegmentationResult, np.ndarray]:  # fmt: skip
    """Tests a run by a protocol; several processes call this together.

    Args:
      run: whose task is segmentation.
      protocol: one of `PROTOCOLS`.
      scales: factors for "multi_scale", `SCALES` by default.
      report: called with (images done, images in all).

    Returns:
      The result, and counts of pixels by label (rows) and first guess; see `Segmentation.evaluate`.

    Raises:
      UserError: for another protocol, for factors that are none, and if no image can be read.
    """
    if protocol not in PROTOCOLS:
        raise unknown_name("protocol", protocol, PROTOCOLS)
    if scales and protocol != "multi_scale":
        raise UserError(f"--scales is for --protocol=multi_scale, not for {protocol}")
    if any(not 0 < scale < np.inf for scale in scales):
        raise UserError(f"--scales={','.join(map(str, scales))} must be factors on the size of images, as 0.75,1,1.25")
    factors = tuple(scales or SCALES) if protocol == "multi_scale" else (1.0,)
    trainer, task, pipeline = run.trainer, run.trainer.task, run.trainer.pipeline
    assert isinstance(task, Segmentation) and isinstance(pipeline, SegmentationPipeline)
    everywhere, shared = replicated(trainer.mesh), batch_sharded(trainer.mesh)

    def test(variables: Any, normalizer: Any, inputs: Any, mask: Array) -> Any:
        images, labels = pipeline.eval_batch(normalizer, inputs)
        means = probabilities(trainer.model, variables, images, factors, mirrored=protocol != "whole_image")
        return task.evaluate(jnp.log(jnp.maximum(means, LEAST)), images, labels, mask)

    step = jax.jit(test, in_shardings=(everywhere, everywhere, shared, shared), out_shardings=everywhere)
    batches, done = [], 0
    for (inputs, mask), batch in zip(pipeline.test_inputs(), pipeline.test_batches, strict=True):
        sent = pipeline.send((inputs, mask), shared)
        batches.append(jax.device_get(step(run.state.tested_variables, pipeline.test, *sent)))
        done += int(batch.mask.sum())
        report(done, pipeline.test_size)
    assert done == pipeline.test_size
    result = SegmentationResult(
        run.config.model.name, run.config.data.name, protocol, factors, trainer.evaluated_on, run.step, done,
        trainer.unreadable(), task.eval_metrics(batches), config_hash(run.config), commit(), versions(),
        hardware(jax.devices()),
    )  # fmt: skip
    return result, np.sum([np.asarray(batch["confusion"], np.int64) for batch in batches], axis=0)


def probabilities(model: Any, variables: Any, images: Array, scales: Sequence[float] = (1.0,),
                  mirrored: bool = False) -> Array:  # fmt: skip
    """Returns the classes' probabilities at each pixel, averaged over views, (batch, height, width, classes).

    Args:
      model, variables: the net.
      images: normalised, (batch, height, width, channels).
      scales: factors on the size at which the images are shown.
      mirrored: whether mirror images are shown, too.
    """
    batch, height, width, channels = images.shape
    found: Array | None = None
    apply: Callable[[Array], Array] = lambda x: model.apply(variables, x, train=False)  # noqa: E731
    for scale in scales:
        size = (max(1, round(height * scale)), max(1, round(width * scale)))
        view = images if scale == 1 else jax.image.resize(images, (batch, *size, channels), "linear", antialias=True)
        for flip in (False, True) if mirrored else (False,):
            scores = jax.nn.softmax(apply(view[:, :, ::-1] if flip else view))
            scores = scores[:, :, ::-1] if flip else scores
            if scale != 1:
                scores = jax.image.resize(scores, (batch, height, width, scores.shape[-1]), "linear", antialias=False)
            found = scores if found is None else found + scores
    assert found is not None
    return found / (len(scales) * (1 + mirrored))


def write_segmentation(result: SegmentationResult, confusion: np.ndarray, classes: Sequence[str],
                       workdir: str | Path) -> Path:  # fmt: skip
    """Writes a test into a run's folder: evaluations/PROTOCOL.json, PROTOCOL_classes.csv and PROTOCOL_confusion.csv.

    Returns:
      The path of the JSON file.

    Raises:
      UserError: if the folder cannot be written to.
    """
    folder = Path(workdir).expanduser() / EVALUATIONS
    path = folder / f"{result.protocol}.json"
    if not is_chief():
        return path
    right, size = np.diagonal(confusion), len(confusion)
    union = confusion.sum(axis=1) + confusion[:, :size].sum(axis=0) - right
    rows = [
        (name, int(confusion[k].sum()), f"{100 * right[k] / union[k]:.4f}" if union[k] else "")
        for k, name in enumerate(classes)
    ]
    tables: dict[str, list] = {
        "classes": [("class", "pixels", "iou_percent"), *rows],
        "confusion": [("class", *(f"guessed {name}" for name in classes), "not finite"),
                      *((name, *row) for name, row in zip(classes, confusion.tolist(), strict=True))],
    }  # fmt: skip
    write_tables(path, tables, json.dumps(dataclasses.asdict(result), indent=2))
    return path
