"""A trained run opened for analysis, and the JSON files that an analysis leaves in its folder."""

import dataclasses
import json
import os
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax
from ml_collections import ConfigDict

from resnet_jax.config import model_overrides
from resnet_jax.data.pipeline import ResidentPipeline
from resnet_jax.errors import UserError
from resnet_jax.models.registry import create_model
from resnet_jax.training.checkpoint import Checkpoints
from resnet_jax.training.mesh import replicated
from resnet_jax.training.record import CHECKPOINTS, RunRecord
from resnet_jax.training.state import TrainState
from resnet_jax.training.trainer import Trainer, make_trainer

#: Told (done, total) as the work goes on.
Report = Callable[[int, int], None]


def no_report(done: int, total: int) -> None:
    """Tells nobody."""


@dataclasses.dataclass(frozen=True)
class OpenRun:
    """A run, ready to be looked into.

    Attributes:
      workdir: its folder.
      trainer: everything that its config stands for.
      state: of its newest checkpoint, on every device.
    """

    workdir: Path
    trainer: Trainer
    state: TrainState

    @property
    def config(self) -> ConfigDict:
        return self.trainer.config

    @property
    def step(self) -> int:
        """Steps that the net was trained for."""
        return int(self.state.step)

    @property
    def variables(self) -> dict[str, Any]:
        """The net's variables, on the host."""
        return jax.device_get({"params": self.state.params, "batch_stats": self.state.batch_stats})


def resident_pipeline(trainer: Trainer) -> ResidentPipeline:
    """The data of a run, on the devices.

    Raises:
      UserError: for a set that is read from files while training.
    """
    if not isinstance(trainer.pipeline, ResidentPipeline):
        raise UserError(f"this analysis is for sets that live on the devices, not for {trainer.config.data.name}")
    return trainer.pipeline


def open_run(workdir: str | Path, data_dir: str | None = None) -> OpenRun:
    """Opens a run at its newest checkpoint that can be read, with a warning for each newer one that cannot.

    Nothing in its folder is changed.

    Args:
      workdir: the run's folder.
      data_dir: TFDS data directory, if it is not where the run found it.

    Raises:
      UserError: if the folder holds no run, or a run without a checkpoint.
    """
    record = RunRecord(workdir)
    config = run_config(workdir, data_dir)
    directory = record.workdir / CHECKPOINTS
    if not directory.is_dir():
        raise UserError(f"{workdir} holds no checkpoint yet; train it first")
    trainer = make_trainer(config)
    checkpoints = Checkpoints(directory, config.keep_checkpoints, read_only=True)
    restored = checkpoints.restore(trainer.init(), replicated(trainer.mesh))
    checkpoints.close()
    if restored is None:
        raise UserError(f"{workdir} holds no checkpoint yet; train it first")
    for sentence in restored.damaged:
        warnings.warn(f"{sentence}; the one before it is analysed", stacklevel=2)
    return OpenRun(record.workdir, trainer, restored.state)


def run_config(workdir: str | Path, data_dir: str | None = None) -> ConfigDict:
    """The config of a run, trained or not; see `open_run`.

    Raises:
      UserError: if the folder holds no run.
    """
    config = RunRecord(workdir).config()
    if data_dir is not None:
        config.data.data_dir = data_dir
    return config


def net_name(config: ConfigDict) -> str:
    """What a figure calls a run's net: "plain-56", "ResNet-56", "preact ResNet-110"."""
    name = config.model.name.removeprefix("cifar_")
    kind, _, rest = name.rpartition("resnet")
    if rest and not name.startswith("plain"):
        return f"{kind.replace('_', ' ')}ResNet-{rest}"
    return name.replace("plain", "plain-").replace("vgg", "VGG-")


def is_plain(config: ConfigDict) -> bool:
    """Whether a run's net has no shortcuts."""
    return getattr(create_model(config.model.name, **model_overrides(config)), "shortcut", "none") == "none"


def write_json(path: Path, value: Any) -> Path:
    """Writes a JSON file that is either whole or not there, and returns its path.

    Raises:
      UserError: if it cannot be written.
    """
    partial = path.with_name(path.name + ".partial")
    try:
        partial.write_text(json.dumps(value, allow_nan=False) + "\n")
        os.replace(partial, path)
    except OSError as error:
        raise UserError(f"cannot write {path}: {error.strerror or error}") from error
    return path


def read_json(path: Path) -> Any:
    """What `write_json` wrote.

    Raises:
      UserError: if there is no such file, or it is damaged.
    """
    try:
        return json.loads(path.read_text())
    except FileNotFoundError:
        raise UserError(f"there is no {path}; the analysis that writes it has not been run") from None
    except (OSError, ValueError) as error:
        raise UserError(f"cannot read {path}: {error}") from error


def resume(path: Path, settings: Mapping[str, Any]) -> dict[str, Any] | None:
    """The part of a long analysis that is done, from a JSON object with a field `settings`; None if there is none.

    Raises:
      UserError: if the file is of other settings, naming them: hours of work are not overwritten by a changed flag.
    """
    if not path.exists():
        return None
    found = read_json(path)
    there = found.get("settings", {}) if isinstance(found, dict) else {}
    if there != settings:
        names = [name for name in {**there, **settings} if there.get(name) != settings.get(name)]
        fields = "; ".join(f"{name}: {there.get(name)} there, {settings.get(name)} here" for name in names)
        raise UserError(f"{path} was made with other settings ({fields}); move it away to make it anew")
    return found
