"""Tests trained runs by a protocol, alone or as an ensemble."""

import contextlib
import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from flax import linen as nn
from ml_collections import ConfigDict

from resnet_jax.config import config_hash
from resnet_jax.data.streaming import StreamingPipeline
from resnet_jax.errors import UserError
from resnet_jax.evaluation import measures, protocols, scoring
from resnet_jax.evaluation.open_run import OpenRun, open_run
from resnet_jax.evaluation.photographs import score_photographs
from resnet_jax.evaluation.statistics import from_training_images
from resnet_jax.models.resnet import ResNet
from resnet_jax.models.strides import total_stride
from resnet_jax.training.result import commit, hardware, versions

#: Metric of the averaged scores of several runs, by any protocol.
ENSEMBLE = "ensemble"

#: Unreadable images that are named one by one.
MOST_NAMED = 20

AnyProtocol = protocols.Protocol | protocols.PhotographProtocol
Progress = contextlib.AbstractContextManager[scoring.Report]


@dataclasses.dataclass(frozen=True)
class ProtocolResult:
    """Holds the result of a test; errors in percent over `examples` images, each seen once.

    Attributes:
      models: names of the nets, several in an ensemble.
      dataset: name.
      protocol: one of `protocols.NAMES`.
      metric: name of the measured error, and of the file.
      views: description of the views.
      shorter_sides, crop: in pixels, see `protocols.Protocol`.
      pool_size: positions on a side of the average pool; None: all positions.
      evaluated_on: "test", or "held_out" for a part of the training set.
      step: steps that the net was trained for; of an ensemble, those of each net.
      unreadable: images among them that could not be read, and were shown grey.
      test_error, top5_error: top-1 and top-5 error; the latter is None with five classes or fewer.
      test_loss: mean negative logarithm of the label's score.
      ece: expected calibration error in percent.
      recompute_bn: training images from which batch-norm statistics were computed; 0: those of training are used.
      config_hashes: of the runs.
      commit, versions, hardware: of the test, see the functions of `training.result`.
    """

    models: tuple[str, ...]
    dataset: str
    protocol: str
    metric: str
    views: str
    shorter_sides: tuple[int, ...]
    crop: int | None
    pool_size: int | None
    evaluated_on: str
    step: int | tuple[int, ...]
    examples: int
    unreadable: int
    test_error: float
    top5_error: float | None
    test_loss: float
    ece: float
    recompute_bn: int
    config_hashes: tuple[str, ...]
    commit: str
    versions: dict[str, str]
    hardware: dict[str, Any]


@dataclasses.dataclass(frozen=True)
class EvaluatedRuns:
    """Holds a test's result and what it is computed from.

    Attributes:
      result: the record.
      scores: (examples, classes).
      labels: (examples,).
      warnings: sentences on newer checkpoints that could not be read, and on views that training did not have.
      unreadable: sentences on images that this process could not read.
    """

    result: ProtocolResult
    scores: np.ndarray
    labels: np.ndarray
    warnings: tuple[str, ...] = ()
    unreadable: tuple[str, ...] = ()


def evaluate_runs(workdirs: Sequence[str | Path | OpenRun], protocol: str | None = None, *, scales: Sequence[int] = (),
              recompute_bn: int | None = None, data_dir: str | None = None,
              report: Callable[[str], None] = lambda sentence: None,
              progress: Callable[[str], Progress] = lambda title: contextlib.nullcontext(scoring.silent),
              ) -> EvaluatedRuns:  # fmt: skip
    """Tests the newest checkpoint of each run; several runs as an ensemble of averaged scores.

    Args:
      workdirs: the runs' folders, or open runs.
      protocol: one of `protocols.NAMES`; by default "single_view", or "centre_crop" for photographs.
      scales: shorter sides for "multi_scale", see `protocols.choose`.
      recompute_bn: number of training images to compute batch-norm statistics from.
      data_dir: where the data are, if not where the runs found them.
      report: called with a sentence on each run before it is tested.
      progress: from a title to a context manager that gives a progress callback.

    Raises:
      UserError: for a folder without a checkpoint, a protocol that does not fit the images or the net, runs of
        different data, or if no image can be read.
    """
    if not workdirs:
        raise UserError("there is no run to test")
    configs: list[ConfigDict] = []
    found: list[np.ndarray] = []
    steps: list[int] = []
    warnings: list[str] = []
    sentences: list[str] = []
    labels, unreadable = np.empty(0), 0
    for workdir in workdirs:
        run = open_run(workdir, data_dir)
        config, trainer = run.config, run.trainer
        _same_data(configs, config, workdir)
        chosen = _choose(run, protocol, scales)
        report(f"{workdir}: {config.model.name} after {run.step} steps, {chosen.description}")
        model = _tested_model(run, chosen)
        variables: scoring.Variables = run.state.tested_variables
        if recompute_bn is not None:
            with progress("batch-norm statistics") as done:
                variables = from_training_images(
                    trainer.model, variables, trainer.pipeline, trainer.mesh, recompute_bn, done
                )
        with progress(chosen.name) as done:
            scores, those, grey = _score(run, chosen, model, variables, done)
        if found and not np.array_equal(labels, those):
            raise UserError(f"{workdir} has other test images than the first run: an ensemble needs the same")
        labels, unreadable = those, int(grey.sum())
        configs.append(config)
        found.append(scores)
        steps.append(run.step)
        warnings += (f"{sentence}; the one before it is evaluated" for sentence in run.passed_over)
        sentences += _first(trainer.pipeline.warnings())
        if chosen.mirrored and not config.data.flip:
            warnings.append(f"{workdir} was trained without mirror images, which are half of what {chosen.name} shows")
    scores = scoring.ensemble(found)
    result = ProtocolResult(
        models=tuple(config.model.name for config in configs),
        dataset=configs[0].data.name,
        protocol=chosen.name,
        metric=chosen.metric if len(configs) == 1 else ENSEMBLE,
        views=chosen.description,
        shorter_sides=chosen.shorter_sides,
        crop=chosen.crop,
        pool_size=getattr(model, "pool_size", None),
        evaluated_on=trainer.evaluated_on,
        step=steps[0] if len(steps) == 1 else tuple(steps),
        examples=len(labels),
        unreadable=unreadable,
        test_error=measures.error(scores, labels),
        top5_error=measures.error(scores, labels, 5) if scores.shape[1] > 5 else None,
        test_loss=measures.loss(scores, labels),
        ece=measures.calibration(scores, labels).ece,
        recompute_bn=recompute_bn or 0,
        config_hashes=tuple(config_hash(config) for config in configs),
        commit=commit(),
        versions=versions(),
        hardware=hardware(jax.devices()),
    )
    return EvaluatedRuns(result, scores, labels, tuple(warnings), tuple(dict.fromkeys(sentences)))


def _choose(run: OpenRun, name: str | None, scales: Sequence[int]) -> AnyProtocol:
    data, any_size = run.config.data, not run.config.model.name.startswith("vgg")
    if isinstance(run.trainer.pipeline, StreamingPipeline):
        return protocols.choose_for_photographs(
            name or "centre_crop", crop=data.image_size, side=data.eval_shorter_side, scales=scales, any_size=any_size
        )
    size = min(run.trainer.pipeline.image_shape[:2])
    return protocols.choose(name or "single_view", size=size, padding=data.padding, scales=scales, any_size=any_size)


def _tested_model(run: OpenRun, chosen: AnyProtocol) -> nn.Module:
    """Returns the run's net; it keeps the average pool of its training images where a protocol shows larger ones."""
    model = run.trainer.model
    if not chosen.fully_convolutional or not isinstance(model, ResNet):
        return model
    side, stride = min(run.trainer.pipeline.image_shape[:2]), total_stride(model)
    return model.clone(pool_size=-(-side // stride))  # a stride of 2 halves and rounds up


def _score(run: OpenRun, chosen: AnyProtocol, model: nn.Module, variables: scoring.Variables,
           report: scoring.Report) -> scoring.Scores:  # fmt: skip
    mesh, pipeline = run.trainer.mesh, run.trainer.pipeline
    test: Any = score_photographs if isinstance(pipeline, StreamingPipeline) else scoring.score_test
    return test(chosen, scoring.jitted_forward(model, mesh), variables, pipeline, mesh, report)


def _first(sentences: Sequence[str]) -> list[str]:
    """Returns at most `MOST_NAMED`, and how many more there are."""
    more = len(sentences) - MOST_NAMED
    return [*sentences[:MOST_NAMED], *([f"{more:,} further images cannot be read"] if more > 0 else [])]


def _same_data(configs: Sequence[ConfigDict], config: ConfigDict, workdir: str | Path | OpenRun) -> None:
    for field in ("name", "folder", "held_out", "held_out_share", "eval_split", "resize"):
        if configs and configs[0].data[field] != config.data[field]:
            raise UserError(
                f"{workdir} has config.data.{field}={config.data[field]} and the first run {configs[0].data[field]}: "
                "an ensemble needs runs of the same data"
            )
