"""`fit`: from a config and a folder to a finished run."""

import dataclasses
import datetime
import math
import statistics
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from flax import linen as nn
from jax.sharding import Mesh
from ml_collections import ConfigDict

from resnet_jax.config import config_hash, model_overrides, validate_config
from resnet_jax.data.dataset import Dataset
from resnet_jax.data.pipeline import ResidentPipeline, make_pipeline
from resnet_jax.data.sources import load_dataset
from resnet_jax.errors import UserError
from resnet_jax.models.registry import create_model
from resnet_jax.models.summary import Summary, summarize
from resnet_jax.training import provenance
from resnet_jax.training.checkpoint import Checkpoints
from resnet_jax.training.mesh import check_batch, make_mesh, replicated
from resnet_jax.training.optimizer import make_optimizer
from resnet_jax.training.progress import NoProgress, ProgressDisplay
from resnet_jax.training.record import CHECKPOINTS, Result, RunRecord
from resnet_jax.training.state import TrainState, init_state
from resnet_jax.training.step import EvalStep, TrainStep, evaluate_test, make_eval_step, make_train_step

#: Steps in one dispatch where the host would else hold up a fast device.
STEPS_PER_DISPATCH = 100


@dataclasses.dataclass(frozen=True)
class Trainer:
    """Everything that a config stands for, ready to run; nothing is written yet.

    Attributes:
      config: the config.
      mesh: all devices.
      model: the net.
      summary: its layers at the set's image size.
      pipeline: the data on the devices.
      train_step, eval_step: the jitted steps.
    """

    config: ConfigDict
    mesh: Mesh
    model: nn.Module
    summary: Summary
    pipeline: ResidentPipeline
    train_step: TrainStep
    eval_step: EvalStep

    def init(self) -> TrainState:
        """The state before the first step, on every device."""
        height, width, channels = self._image_shape
        optimizer = make_optimizer(self.config.optimizer)
        state = init_state(self.model, optimizer, self.config.seed, (height, width, channels))
        return jax.device_put(state, replicated(self.mesh))

    @property
    def _image_shape(self) -> tuple[int, ...]:
        return self.pipeline.train["images"].shape[1:]


def make_trainer(config: ConfigDict, devices: Sequence[jax.Device] | None = None) -> Trainer:
    """Builds all parts of a run.

    Args:
      config: the fields of `config.base_config`.
      devices: devices to train on, all by default.

    Raises:
      UserError: for anything in the config that is unknown or does not fit.
    """
    validate_config(config)
    mesh = make_mesh(devices)
    check_batch(mesh, config.batch_size)
    create_model(config.model.name, **model_overrides(config))  # a misspelt net should not wait for the data
    data = config.data
    dataset = load_dataset(data.name, data.data_dir, data.held_out)
    model, summary = _build_model(config, dataset)
    pipeline = make_pipeline(
        dataset, mesh, seed=config.seed, batch_size=config.batch_size,
        normalization_kind=data.normalization, padding=data.padding, flip=data.flip,
    )  # fmt: skip
    return Trainer(
        config, mesh, model, summary, pipeline,
        make_train_step(model, config, pipeline, mesh), make_eval_step(model, pipeline, mesh),
    )  # fmt: skip


def _build_model(config: ConfigDict, dataset: Dataset) -> tuple[nn.Module, Summary]:
    name = config.model.name
    model = create_model(name, **model_overrides(config), num_classes=dataset.num_classes, dtype=config.dtype)
    group = getattr(model, "bn_group_size", 0)
    if group and config.batch_size % group:
        raise UserError(f"config.model.bn_group_size={group} does not divide config.batch_size={config.batch_size}")
    height, _, channels = dataset.image_shape
    return model, summarize(model, name, height, channels)


def fit(
    config: ConfigDict,
    workdir: str | Path,
    progress: ProgressDisplay | None = None,
    devices: Sequence[jax.Device] | None = None,
) -> Result:
    """Trains a net as the config says and records the run in `workdir`.

    A finished run is only read; an unfinished one goes on from its newest checkpoint.

    Args:
      config: the fields of `config.base_config`.
      workdir: the run's folder, made if needed.
      progress: what to show meanwhile; nothing by default.
      devices: devices to train on, all by default.

    Returns:
      The result, as in `result.json`.

    Raises:
      UserError: for a config that cannot be run, a folder that holds another run or cannot be written to, and
        for a loss that is not finite.
    """
    record = RunRecord(workdir)
    record.check_same(config)
    if (finished := record.result()) is not None:
        return finished
    trainer = make_trainer(config, devices)
    record.begin(config)
    progress = progress or NoProgress()
    checkpoints = Checkpoints(record.workdir / CHECKPOINTS, config.keep_checkpoints)
    try:
        return _Run(trainer, record, checkpoints, progress).run()
    finally:
        checkpoints.close()
        record.close()


class _Run:
    """One run in progress: the state, and what the host counts beside it."""

    def __init__(
        self, trainer: Trainer, record: RunRecord, checkpoints: Checkpoints, progress: ProgressDisplay
    ) -> None:
        self.trainer, self.config = trainer, trainer.config
        self.record, self.checkpoints, self.progress = record, checkpoints, progress
        self.state = trainer.init()
        self.step = 0
        self.pending: list[dict[str, float]] = []  # steps since the last training line
        self.earlier_seconds = 0.0  # of the parts of the run before it was resumed
        restored = checkpoints.restore(self.state, replicated(trainer.mesh))
        if restored is not None:
            self.state, host = restored
            self.step = int(self.state.step)
            self.pending, self.earlier_seconds = host["pending"], host["seconds"]
        record.truncate(self.step)
        self.began = time.monotonic()
        self.timed_steps, self.timed_seconds = 0, 0.0  # since the last training line, without compilation
        self.shown: dict[str, float] = {}
        self._compiled: dict[int, Any] = {}

    def run(self) -> Result:
        """Trains to the end and writes the result."""
        config = self.config
        self.progress.start(f"{config.model.name} seed {config.seed}", self.step, config.steps)
        while self.step < config.steps:
            self._advance(self._next_count())
            if self._due(config.log_every):
                self._log()
            if self._due(config.eval_every):
                self._evaluate()
            if self._due(config.checkpoint_every):
                self._save()
        result = self._result()
        self.record.finish(result)
        return result

    def _due(self, every: int) -> bool:
        return self.step % every == 0 or self.step == self.config.steps

    def _next_count(self) -> int:
        """Steps of the next dispatch: a full one if nothing is due before its end, else one step."""
        config = self.config
        on_cpu = self.trainer.mesh.devices.flat[0].platform == "cpu"
        count = config.steps_per_dispatch or (1 if on_cpu else STEPS_PER_DISPATCH)
        events = (config.log_every, config.eval_every, config.checkpoint_every)
        until_due = min(config.steps - self.step, *(every - self.step % every for every in events))
        # Two sizes only, since each size compiles anew.
        return count if count <= until_due else 1

    def _advance(self, count: int) -> None:
        """Takes `count` steps and fetches their metrics."""
        trainer = self.trainer
        inputs = trainer.pipeline.train_inputs(self.step, count)
        if count not in self._compiled:
            self.progress.status("compiling")
            self._compiled[count] = trainer.train_step.lower(self.state, trainer.pipeline.train, inputs).compile()
        began = time.monotonic()
        self.state, metrics = self._compiled[count](self.state, trainer.pipeline.train, inputs)
        metrics = jax.device_get(metrics)
        self.timed_seconds += time.monotonic() - began
        self.timed_steps += count
        for i in range(count):
            values = {name: float(value[i]) for name, value in metrics.items()}
            if not math.isfinite(values["loss"]):
                raise UserError(self._diverged(self.step + i + 1, values["loss"]))
            self.pending.append(values)
        self.step += count
        self._show({"loss": values["loss"], "images_per_second": self._rate()}, line=False)

    def _diverged(self, step: int, loss: float) -> str:
        last = [line["step"] for line in self.record.lines()]
        kept = f"the record up to step {last[-1]} is kept" if last else "nothing was recorded before it"
        return (
            f"the loss became {loss} at step {step}; {kept} in {self.record.workdir}. "
            "A lower config.optimizer.learning_rate or a config.schedule.warmup may help; choose a new workdir for it"
        )

    def _log(self) -> None:
        """Writes one training line, the mean over the steps since the last one."""
        mean = {name: float(np.mean([p[name] for p in self.pending])) for name in self.pending[0]}
        line = {
            "loss": mean["loss"],
            "train_error": 100 * mean["error"],
            "learning_rate": self.pending[-1]["learning_rate"],
            "images_per_second": self._rate(),
        }
        self.record.append(self.step, line)
        self._show(line, line=True)
        self.pending, self.timed_steps, self.timed_seconds = [], 0, 0.0

    def _rate(self) -> float:
        return self.timed_steps * self.config.batch_size / self.timed_seconds

    def _evaluate(self) -> None:
        line = evaluate_test(self.trainer.eval_step, self.state, self.trainer.pipeline)
        self.record.append(self.step, line)
        self._show(line, line=True)

    def _show(self, values: Mapping[str, float], *, line: bool) -> None:
        self.shown |= values
        self.progress.update(self.step, self.shown, line=line)

    def _save(self) -> None:
        host = {"pending": self.pending, "seconds": self._seconds()}
        self.checkpoints.save(self.step, self.state, host)

    def _seconds(self) -> float:
        return self.earlier_seconds + time.monotonic() - self.began

    def _result(self) -> Result:
        config, summary = self.config, self.trainer.summary
        lines = self.record.lines()
        tests = [line["test_error"] for line in lines if "test_error" in line]
        rates = [line["images_per_second"] for line in lines if "images_per_second" in line]
        epoch = math.ceil(self.trainer.pipeline.train_size / config.batch_size)
        return Result(
            model=config.model.name,
            dataset=config.data.name,
            config_hash=config_hash(config),
            commit=provenance.commit(),
            versions=provenance.versions(),
            hardware=provenance.hardware(),
            finished=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
            seed=config.seed,
            steps=config.steps,
            batch_size=config.batch_size,
            seconds=round(self._seconds(), 1),
            images_per_second=round(statistics.median(rates), 1),
            depth=summary.depth,
            params=summary.params,
            flops=summary.flops,
            train_error=_last_epoch_error(lines, epoch),
            test_error=tests[-1],
            best_test_error=min(tests),
            evaluated_on="held_out" if config.data.held_out else "test",
        )


def _last_epoch_error(lines: Sequence[Mapping[str, Any]], epoch: int) -> float:
    """Mean training error in percent of the last `epoch` steps, rounded up to whole training lines."""
    trained = [line for line in lines if "train_error" in line]
    ends = [line["step"] for line in trained]
    widths = np.diff([0, *ends])  # each line averages the steps since the one before
    inside = [i for i, end in enumerate(ends) if end > ends[-1] - epoch]
    return float(np.average([trained[i]["train_error"] for i in inside], weights=widths[inside]))
