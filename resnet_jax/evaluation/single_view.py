"""Single-view test error of a run, as the papers report it for CIFAR (He et al. 2015, section 4.2)."""

import dataclasses
from pathlib import Path

from ml_collections import ConfigDict

from resnet_jax.errors import UserError
from resnet_jax.training.checkpoint import Checkpoints
from resnet_jax.training.mesh import replicated
from resnet_jax.training.record import CHECKPOINTS, RunRecord
from resnet_jax.training.state import TrainState
from resnet_jax.training.step import evaluate_test
from resnet_jax.training.trainer import Trainer, make_trainer


@dataclasses.dataclass(frozen=True)
class Evaluation:
    """What an evaluation found: error in percent and mean loss over `examples` images, each seen once.

    Attributes:
      model, dataset: names.
      protocol: how images were shown: "single_view".
      evaluated_on: "test", or "held_out" for a part of the training set.
      step: steps that the net was trained for.
      examples: number of images.
      passed_over: a sentence for each newer checkpoint that could not be read.
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


@dataclasses.dataclass(frozen=True)
class RestoredRun:
    """A run at its newest checkpoint.

    Attributes:
      trainer: everything that its config stands for.
      state: of the checkpoint, on every device.
      passed_over: a sentence for each newer checkpoint that could not be read.
    """

    trainer: Trainer
    state: TrainState
    passed_over: tuple[str, ...]


def restore(workdir: str | Path, data_dir: str | None = None) -> RestoredRun:
    """Opens a run at its newest checkpoint that can be read; nothing in its folder is changed.

    Args:
      workdir: the run's folder.
      data_dir: TFDS data directory, if it is not where the run found it.

    Raises:
      UserError: if the folder holds no run, or a run without a checkpoint.
    """
    record = RunRecord(workdir)
    config: ConfigDict = record.config()
    directory = record.workdir / CHECKPOINTS
    if not directory.is_dir():
        raise UserError(f"{workdir} holds no checkpoint yet; train it first")
    if data_dir is not None:
        config.data.data_dir = data_dir
    trainer = make_trainer(config)
    checkpoints = Checkpoints(directory, config.keep_checkpoints, read_only=True)
    restored = checkpoints.restore(trainer.init(), replicated(trainer.mesh))
    checkpoints.close()
    if restored is None:
        raise UserError(f"{workdir} holds no checkpoint yet; train it first")
    return RestoredRun(trainer, restored.state, restored.damaged)


def evaluate(workdir: str | Path, data_dir: str | None = None) -> Evaluation:
    """Evaluates the newest checkpoint of a run.

    Args:
      workdir: the run's folder.
      data_dir: TFDS data directory, if it is not where the run found it.

    Raises:
      UserError: if the folder holds no run, or a run without a checkpoint.
    """
    run = restore(workdir, data_dir)
    trainer, state = run.trainer, run.state
    config = trainer.config
    scores = evaluate_test(trainer.eval_step, state, trainer.pipeline, trainer.mesh)
    return Evaluation(
        model=config.model.name,
        dataset=config.data.name,
        protocol="single_view",
        evaluated_on="held_out" if config.data.held_out else "test",
        step=int(state.step),
        examples=trainer.pipeline.test_size,
        **scores,
        passed_over=run.passed_over,
    )
