"""A trained run opened at its newest checkpoint, to be evaluated or looked into."""

import dataclasses
from pathlib import Path
from typing import Any

import jax
from ml_collections import ConfigDict

from resnet_jax.data.pipeline import ResidentPipeline
from resnet_jax.errors import UserError
from resnet_jax.training.checkpoint import Checkpoints
from resnet_jax.training.mesh import replicated
from resnet_jax.training.record import CHECKPOINTS, RunRecord
from resnet_jax.training.state import TrainState
from resnet_jax.training.trainer import Trainer, make_trainer


@dataclasses.dataclass(frozen=True)
class OpenRun:
    """A run, ready to be evaluated or looked into.

    Attributes:
      workdir: its folder.
      trainer: everything that its config stands for.
      state: of its newest checkpoint that can be read, on every device.
      passed_over: a sentence for each newer checkpoint that could not be read.
    """

    workdir: Path
    trainer: Trainer
    state: TrainState
    passed_over: tuple[str, ...] = ()

    def __str__(self) -> str:
        return str(self.workdir)

    @property
    def config(self) -> ConfigDict:
        return self.trainer.config

    @property
    def step(self) -> int:
        """Steps that the net was trained for."""
        return int(self.state.step)

    @property
    def variables(self) -> dict[str, Any]:
        """The net's variables as they are evaluated, on the host."""
        return jax.device_get(self.state.tested_variables)


def run_config(workdir: str | Path, data_dir: str | None = None) -> ConfigDict:
    """The config of a run, trained or not; see `restore_run`.

    Raises:
      UserError: if the folder holds no run.
    """
    config = RunRecord(workdir).config()
    if data_dir is not None:
        config.data.data_dir = data_dir
    return config


def restore_run(workdir: str | Path, data_dir: str | None = None) -> OpenRun:
    """Opens a run at its newest checkpoint that can be read. Nothing in its folder is changed.

    Args:
      workdir: the run's folder.
      data_dir: TFDS data directory, if it is not where the run found it.

    Raises:
      UserError: if the folder holds no run, or a run without a checkpoint.
    """
    record = RunRecord(workdir)
    config = run_config(workdir, data_dir)
    directory = record.workdir / CHECKPOINTS
    if not directory.is_dir():  # said before the set is read
        raise UserError(f"{workdir} holds no checkpoint yet; train it first")
    trainer = make_trainer(config)
    checkpoints = Checkpoints(directory, config.keep_checkpoints, read_only=True)
    restored = checkpoints.restore(trainer.random_init(), replicated(trainer.mesh))
    checkpoints.close()
    if restored is None:
        raise UserError(f"{workdir} holds no checkpoint yet; train it first")
    return OpenRun(record.workdir, trainer, restored.state, restored.damaged)


def opened(run: str | Path | OpenRun, data_dir: str | None = None) -> OpenRun:
    """A run by its folder, see `restore_run`; or one that is open already, as weights with a set to test them on."""
    return run if isinstance(run, OpenRun) else restore_run(run, data_dir)


def resident_pipeline(trainer: Trainer) -> ResidentPipeline:
    """The data of a run, on the devices.

    Raises:
      UserError: for a set that is read from files while training.
    """
    if not isinstance(trainer.pipeline, ResidentPipeline):
        raise UserError(f"this is for sets that live on the devices, not for {trainer.config.data.name}")
    return trainer.pipeline
