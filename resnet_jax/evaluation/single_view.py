"""Evaluates a run as in training: by a single view (He et al. 2015, section 4.2), the centre crop, or whole images."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from resnet_jax.data.detection.pipeline import BoxPipeline
from resnet_jax.data.pipeline import Pipeline
from resnet_jax.data.segmentation.pipeline import SegmentationPipeline
from resnet_jax.data.streaming import StreamingPipeline
from resnet_jax.evaluation.open_run import OpenRun, open_run


@dataclasses.dataclass(frozen=True)
class Evaluation:
    """Holds the task's metrics over `examples` images, each seen once.

    Attributes:
      model, dataset: names.
      task: see `config.task`.
      protocol: "single_view", "centre_crop" for photographs, "whole_image" for images with masks or boxes.
      evaluated_on: "test", or "held_out" for a part of the training set.
      step: steps that the net was trained for.
      examples: number of images.
      metrics: by name, as the task's `eval_metrics` gives them; errors are in percent.
      passed_over: a sentence for each newer checkpoint that could not be read.
      unreadable: sentences on images that could not be read, and were shown grey.
      shown_grey: how many of the images these are; they count in the error.
    """

    model: str
    dataset: str
    task: str
    protocol: str
    evaluated_on: str
    step: int
    examples: int
    metrics: Mapping[str, float]
    passed_over: tuple[str, ...] = ()
    unreadable: tuple[str, ...] = ()
    shown_grey: int = 0

    @property
    def test_error(self) -> float:
        """Returns the error of classification in percent."""
        return self.metrics["test_error"]

    @property
    def test_loss(self) -> float:
        """Returns the mean loss."""
        return self.metrics["test_loss"]

    def to_json(self) -> dict[str, Any]:
        """Returns the record as JSON holds it, the metrics beside the other fields."""
        fields = dataclasses.asdict(self)
        return {**fields, **fields.pop("metrics")}


def evaluate(workdir: str | Path | OpenRun, data_dir: str | None = None) -> Evaluation:
    """Evaluates the newest checkpoint of a run.

    Args:
      workdir: the run's folder, or an open run.
      data_dir: where the data are, if not where the run found them.

    Raises:
      UserError: if the folder holds no run, or a run without a checkpoint.
    """
    run = open_run(workdir, data_dir)
    config, trainer = run.config, run.trainer
    metrics = dict(trainer.evaluate(run.state))
    shown_grey = int(metrics.pop("unreadable", 0))
    return Evaluation(
        model=config.model.name,
        dataset=config.data.name,
        task=config.task,
        protocol=_protocol(trainer.pipeline),
        evaluated_on=trainer.evaluated_on,
        step=run.step,
        examples=trainer.pipeline.test_size,
        metrics=metrics,
        passed_over=run.passed_over,
        unreadable=tuple(trainer.pipeline.warnings()),
        shown_grey=shown_grey,
    )


def _protocol(pipeline: Pipeline) -> str:
    if isinstance(pipeline, SegmentationPipeline | BoxPipeline):
        return "whole_image"
    return "centre_crop" if isinstance(pipeline, StreamingPipeline) else "single_view"
