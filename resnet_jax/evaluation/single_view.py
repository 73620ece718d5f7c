"""Evaluates a run as in training: by a single view (He et al. 2015, section 4.2), or the centre crop."""

import dataclasses
from pathlib import Path

from resnet_jax.data.streaming import StreamingPipeline
from resnet_jax.evaluation.open_run import OpenRun, open_run


@dataclasses.dataclass(frozen=True)
class Evaluation:
    """Holds error in percent and mean loss over `examples` images, each seen once.

    Attributes:
      model, dataset: names.
      protocol: "single_view", or "centre_crop" for photographs.
      evaluated_on: "test", or "held_out" for a part of the training set.
      step: steps that the net was trained for.
      examples: number of images.
      passed_over: a sentence for each newer checkpoint that could not be read.
      unreadable: sentences on images that could not be read, and were shown grey.
      shown_grey: how many of the images these are; they count in the error.
    """

    model: str
    dataset: str
    protocol: str
    evaluated_on: str
    step: int
    examples: int
    test_error: float
    test_loss: float
    passed_over: tuple[str, ...] = ()
    unreadable: tuple[str, ...] = ()
    shown_grey: int = 0


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
    scores = trainer.evaluate(run.state)
    shown_grey = int(scores.pop("unreadable", 0))
    return Evaluation(
        model=config.model.name,
        dataset=config.data.name,
        protocol="centre_crop" if isinstance(trainer.pipeline, StreamingPipeline) else "single_view",
        evaluated_on=trainer.evaluated_on,
        step=run.step,
        examples=trainer.pipeline.test_size,
        **scores,
        passed_over=run.passed_over,
        unreadable=tuple(trainer.pipeline.warnings()),
        shown_grey=shown_grey,
    )
