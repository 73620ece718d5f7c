"""Trained runs tested by a protocol, alone or as an ensemble, and the files that this leaves in their folders."""

import contextlib
import csv
import dataclasses
import io
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from flax import linen as nn
from ml_collections import ConfigDict

from resnet_jax.atomic_write import atomic_write
from resnet_jax.config import config_hash
from resnet_jax.data.pipeline import ResidentPipeline
from resnet_jax.data.streaming import StreamingPipeline
from resnet_jax.errors import UserError
from resnet_jax.evaluation import measures, photographs, protocols, scoring
from resnet_jax.evaluation.restore import OpenRun, opened
from resnet_jax.evaluation.statistics import from_training_images
from resnet_jax.models.resnet import ResNet, total_stride
from resnet_jax.training.distributed import is_chief
from resnet_jax.training.provenance import commit, hardware, versions

EVALUATIONS = "evaluations"

#: Metric of the averaged scores of several runs, whatever protocol each is tested by.
ENSEMBLE = "ensemble"


#: Images that could not be read and are named one by one.
MOST_TOLD = 20

Progress = contextlib.AbstractContextManager[scoring.Report]


@dataclasses.dataclass(frozen=True)
class ProtocolResult:
    """What a test found; errors in percent over `examples` images, each seen once.

    Attributes:
      models: names of the nets, several in an ensemble.
      dataset: name.
      protocol: one of `protocols.NAMES`.
      metric: the experiments' name for what was measured, and the file's.
      views: how the protocol shows an image.
      shorter_sides: of the views, or of what they are cut from, in pixels; empty for images at their own size.
      crop: side of the crops in pixels; None: images were shown whole.
      pool_size: positions on a side of the average pool; None: it holds all positions.
      evaluated_on: "test", or "held_out" for a part of the training set.
      step: steps that each net was trained for: one number, or that of each net of an ensemble.
      unreadable: images among them that could not be read, and were shown grey.
      test_error, top5_error: of the first guess, and of the first five; with five classes or fewer nothing is in the
        second: None.
      test_loss: mean negative logarithm of the label's score.
      ece: expected calibration error in percent.
      recompute_bn: training images asked for to compute the batch-norm statistics from; 0: those of training.
      config_hashes: of the runs.
      commit, versions, hardware: of the test, see `provenance`.
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
    """A test and what it is computed from.

    Attributes:
      result: what is recorded.
      scores: (examples, classes).
      labels: (examples,).
      warnings: sentences on newer checkpoints that could not be read, and on views unlike those of training.
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
      workdirs: the runs' folders, or what `weights.open_weights` gave.
      protocol: one of `protocols.NAMES`; unset: "single_view", or for photographs "centre_crop".
      scales: shorter sides for "multi_scale", see `protocols.choose`.
      recompute_bn: training images to compute batch-norm statistics from, instead of those of training.
      data_dir: where the data are, if not where the runs found them.
      report: told a sentence of each run before it is tested.
      progress: from what is going on to a context that gives what is told how far it is.

    Raises:
      UserError: for a folder without a checkpoint, a protocol that does not fit the images or the net, runs that were
        not trained and tested on the same data, or images none of which can be read.
    """
    if not workdirs:
        raise UserError("there is no run to test")
    configs: list[ConfigDict] = []
    found: list[np.ndarray] = []
    steps: list[int] = []
    warnings: list[str] = []
    complaints: list[str] = []
    labels = np.empty(0)
    grey = 0
    for workdir in workdirs:
        run = opened(workdir, data_dir)
        config, trainer = run.config, run.trainer
        _same_data(configs, config, workdir)
        chosen = _choose(run, protocol, scales)
        report(f"{workdir}: {config.model.name} after {run.step} steps, {chosen.description}")
        model = _tested_model(run, chosen)
        variables: scoring.Variables = run.state.tested_variables
        if recompute_bn is not None:
            with progress("batch-norm statistics") as told:
                variables = from_training_images(
                    trainer.model, variables, trainer.pipeline, trainer.mesh, recompute_bn, told
                )
        with progress(chosen.name) as told:
            scores, those, grey = _score(run, chosen, model, variables, told)
        if found and not np.array_equal(labels, those):
            raise UserError(f"{workdir} has other test images than the first run: an ensemble needs the same")
        labels = those
        configs.append(config)
        found.append(scores)
        steps.append(run.step)
        warnings += (f"{sentence}; the one before it is evaluated" for sentence in run.passed_over)
        complaints += _some(trainer.pipeline.warnings())
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
        unreadable=grey,
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
    return EvaluatedRuns(result, scores, labels, tuple(warnings), tuple(dict.fromkeys(complaints)))


def _choose(run: OpenRun, name: str | None, scales: Sequence[int]) -> protocols.Protocol | protocols.PhotographProtocol:
    data, any_size = run.config.data, not run.config.model.name.startswith("vgg")
    if isinstance(run.trainer.pipeline, StreamingPipeline):
        return protocols.choose_for_photographs(
            name or "centre_crop", crop=data.image_size, side=data.eval_shorter_side, scales=scales, any_size=any_size
        )
    size = min(run.trainer.pipeline.image_shape[:2])
    return protocols.choose(name or "single_view", size=size, padding=data.padding, scales=scales, any_size=any_size)


def _tested_model(run: OpenRun, chosen: protocols.Protocol | protocols.PhotographProtocol) -> nn.Module:
    """The run's net, with the average pool of its training images where a protocol shows larger ones."""
    model = run.trainer.model
    if not chosen.fully_convolutional or not isinstance(model, ResNet):
        return model
    side, stride = min(run.trainer.pipeline.image_shape[:2]), total_stride(model)
    return model.clone(pool_size=-(-side // stride))  # a stride of 2 halves and rounds up


def _score(run: OpenRun, chosen: protocols.Protocol | protocols.PhotographProtocol, model: nn.Module,
           variables: scoring.Variables, told: scoring.Report) -> tuple[np.ndarray, np.ndarray, int]:  # fmt: skip
    """Scores (n, classes), labels (n,), and how many images could not be read."""
    mesh, pipeline = run.trainer.mesh, run.trainer.pipeline
    if isinstance(pipeline, StreamingPipeline):
        assert isinstance(chosen, protocols.PhotographProtocol)
        scored = photographs.score_photographs(
            chosen, photographs.jitted_forward(model, mesh), variables, pipeline, mesh, told
        )
        return scored.scores, scored.labels, int(scored.unreadable.sum())
    assert isinstance(chosen, protocols.Protocol) and isinstance(pipeline, ResidentPipeline)
    scores, labels = scoring.score_test(chosen, scoring.jitted_forward(model, mesh), variables, pipeline, mesh, told)
    return scores, labels, 0


def _some(sentences: Sequence[str]) -> list[str]:
    """At most `MOST_TOLD`, and how many more there are."""
    more = len(sentences) - MOST_TOLD
    return [*sentences[:MOST_TOLD], *([f"{more:,} further images cannot be read"] if more > 0 else [])]


evaluate_runs.__test__ = False  # type: ignore[attr-defined]  # pytest takes its name for that of a test


def _same_data(configs: Sequence[ConfigDict], config: ConfigDict, workdir: str | Path | OpenRun) -> None:
    for field in ("name", "folder", "held_out", "held_out_share", "eval_split", "resize"):
        if configs and configs[0].data[field] != config.data[field]:
            raise UserError(
                f"{workdir} has config.data.{field}={config.data[field]} and the first run {configs[0].data[field]}: "
                "an ensemble needs runs of the same data"
            )


def write_evaluation(tested: EvaluatedRuns, workdir: str | Path) -> Path:
    """Writes a test into a run's folder: the result, errors by class, confusion and calibration.

    The files are evaluations/METRIC.json, METRIC_classes.csv, METRIC_confusion.csv and METRIC_calibration.csv. An
    earlier test by the same metric is replaced. Several processes call this together, and one writes.

    Returns:
      The path of the JSON file.

    Raises:
      UserError: if the folder cannot be written to.
    """
    folder = Path(workdir).expanduser() / EVALUATIONS
    result, scores, labels = tested.result, tested.scores, tested.labels
    path = folder / f"{result.metric}.json"
    if not is_chief():
        return path
    guesses = measures.ranks(scores, labels)
    matrix = measures.confusion(scores, labels)
    calibration = measures.calibration(scores, labels)
    classes = [
        (c, int(np.sum(labels == c)), *(_percent(guesses[labels == c] >= k) for k in (1, 5)))
        for c in range(scores.shape[1])
    ]
    bins = zip(
        calibration.edges[:-1], calibration.edges[1:], calibration.counts, calibration.confidence,
        calibration.accuracy, strict=True,
    )  # fmt: skip
    try:
        folder.mkdir(exist_ok=True)
        _write_csv(
            folder / f"{result.metric}_classes.csv",
            ("class", "images", "error_percent", "top5_error_percent"), classes,
        )  # fmt: skip
        _write_csv(
            folder / f"{result.metric}_confusion.csv",
            ("class", *(f"guessed_{c}" for c in range(len(matrix)))),
            ((c, *row) for c, row in enumerate(matrix.tolist())),
        )
        _write_csv(
            folder / f"{result.metric}_calibration.csv",
            ("above", "to", "images", "confidence", "accuracy"),
            (
                (f"{a:.4f}", f"{b:.4f}", int(n), *("" if n == 0 else f"{v:.6f}" for v in (p, q)))
                for a, b, n, p, q in bins
            ),
        )
        atomic_write(path, json.dumps(to_json(result), indent=2, allow_nan=False) + "\n")
    except OSError as problem:
        raise UserError(f"cannot write to {folder}: {problem.strerror or problem}") from problem
    return path


def to_json(result: ProtocolResult) -> dict[str, Any]:
    """The result as JSON holds it; null where a diverged net's loss is no number."""
    fields = dataclasses.asdict(result)
    return {k: None if isinstance(v, float) and not np.isfinite(v) else v for k, v in fields.items()}


def _percent(wrong: np.ndarray) -> str:
    return f"{100 * np.mean(wrong):.4f}" if wrong.size else ""


def _write_csv(path: Path, header: Sequence[str], rows: Any) -> None:
    text = io.StringIO(newline="")
    csv.writer(text, lineterminator="\n").writerows([header, *rows])
    atomic_write(path, text.getvalue())
