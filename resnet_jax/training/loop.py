"""`fit`: from a config and a folder to a finished run."""

import contextlib
import datetime
import math
import statistics
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from ml_collections import ConfigDict

from resnet_jax.config import config_hash, flatten, validate_config
from resnet_jax.errors import Stopped, UserError, unknown_name
from resnet_jax.training import provenance
from resnet_jax.training.checkpoint import Checkpoints
from resnet_jax.training.mesh import check_batch, make_mesh, platform, replicated
from resnet_jax.training.progress import NoProgress, ProgressDisplay
from resnet_jax.training.record import CHECKPOINTS, Result, RunRecord
from resnet_jax.training.step import evaluate_test
from resnet_jax.training.stop import StopRequest
from resnet_jax.training.trainer import Trainer, make_trainer

#: Steps in one dispatch where the host would else hold up a fast device.
STEPS_PER_DISPATCH = 100


def fit(
    config: ConfigDict,
    workdir: str | Path,
    progress: ProgressDisplay | None = None,
    devices: Sequence[jax.Device] | None = None,
    force: Collection[str] = (),
) -> Result:
    """Trains a net as the config says and records the run in `workdir`.

    A finished run is only read; an unfinished one goes on from its newest checkpoint.

    Args:
      config: the fields of `config.base_config`.
      workdir: the run's folder, made if needed.
      progress: what to show meanwhile; nothing by default.
      devices: devices to train on, all by default.
      force: fields in which the config may differ from that of the run in `workdir`, which then goes on with it.

    Returns:
      The result, as in `result.json`.

    Raises:
      UserError: for a config that cannot be run, a folder that holds another run or cannot be written to, and
        for a loss that is not finite.
      Stopped: after SIGTERM or SIGINT, with the state saved.
    """
    began = time.monotonic()
    for name in force:
        if name not in flatten(config):
            raise unknown_name("config field", name, flatten(config))
    validate_config(config)
    record = RunRecord(workdir)
    if record.is_same(config, force) and (finished := record.result()) is not None:
        return finished
    check_batch(make_mesh(devices), config.batch_size, config.accumulate)
    trainer = make_trainer(config, devices)
    record.begin(config)
    progress = progress or NoProgress()
    checkpoints = Checkpoints(record.workdir / CHECKPOINTS, config.keep_checkpoints)
    try:
        with StopRequest() as stop:
            result = _Run(trainer, record, checkpoints, progress, stop, began).run()
    except BaseException:
        with contextlib.suppress(UserError):  # the first error says more than that of a checkpoint behind it
            checkpoints.close()
        record.close()
        raise
    checkpoints.close()
    record.finish(result)
    return result


class _Run:
    """One run in progress: the state, and what the host counts beside it."""

    def __init__(
        self,
        trainer: Trainer,
        record: RunRecord,
        checkpoints: Checkpoints,
        progress: ProgressDisplay,
        stop: StopRequest,
        began: float,
    ) -> None:
        self.began = began
        # As it is now: a long run may see later commits.
        self.commit = provenance.commit()
        self.trainer, self.config = trainer, trainer.config
        self.record, self.checkpoints, self.progress, self.stop = record, checkpoints, progress, stop
        self.state = trainer.init()
        self.step = 0
        self.pending: list[dict[str, float]] = []  # steps since the last training line
        self.earlier_seconds = 0.0  # of the parts of the run before it was resumed
        restored = checkpoints.restore(self.state, replicated(trainer.mesh))
        if restored is not None:
            self.state = restored.state
            self.step = int(self.state.step)
            self.pending, self.earlier_seconds = restored.host["pending"], restored.host["seconds"]
        record.adopt(trainer.config)
        record.truncate(self.step)
        self.damaged = restored.damaged if restored is not None else ()
        self.test_error: float | None = None  # at this very step
        self.timed_steps, self.timed_seconds = 0, 0.0  # since the last training line, without compilation
        self.shown: dict[str, float] = {}
        self._compiled: dict[int, Any] = {}

    def run(self) -> Result:
        """Trains to the end, or to the signal that stops it."""
        config = self.config
        self.progress.start(f"{config.model.name} seed {config.seed}", self.step, config.steps)
        for note in self._notes():
            self.progress.note(note)
        while self.step < config.steps:
            self._advance(self._next_count())
            if self._due(config.log_every):
                self._log()
            if self._due(config.eval_every):
                self._evaluate()
            if self._due(config.checkpoint_every):
                self._save()
            if self.stop.signal is not None and self.step < config.steps:
                self._save()
                raise Stopped(
                    f"{self.stop.signal.name} after step {self.step} of {config.steps}; the state is saved in "
                    f"{self.record.workdir}, and the same command goes on from there"
                )
        return self._result()

    def _notes(self) -> Iterator[str]:
        """What the reader should know ahead of the first step."""
        config, schedule = self.config, self.config.schedule
        for sentence in self.damaged:
            yield f"{sentence}; it was moved aside, and training goes on from step {self.step}"
        if config.accumulate > 1 and not getattr(self.trainer.model, "bn_group_size", 0):
            yield (
                f"batch statistics are over the {config.batch_size // config.accumulate} examples of a micro-batch; "
                "with config.model.bn_group_size set, the result does not depend on config.accumulate"
            )
        if schedule.warmup in ("steps", "linear") and schedule.warmup_steps >= config.steps:
            yield f"all {config.steps} steps are warm-up: config.schedule.warmup_steps={schedule.warmup_steps}"

    def _due(self, every: int) -> bool:
        return self.step % every == 0 or self.step == self.config.steps

    def _next_count(self) -> int:
        """Steps of the next dispatch: the same number throughout, since each number compiles anew.

        Single steps lead up to a multiple of it where a run with another number was stopped between.
        """
        config = self.config
        on_cpu = platform(self.trainer.mesh) == "cpu"
        most = config.steps_per_dispatch or (1 if on_cpu else STEPS_PER_DISPATCH)
        # What is due falls between dispatches: the number divides all intervals.
        common = math.gcd(config.steps, config.log_every, config.eval_every, config.checkpoint_every)
        count = max(divisor for divisor in range(1, min(most, common) + 1) if common % divisor == 0)
        return count if self.step % count == 0 else 1

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
            # A loss that is finite can have a gradient that is not: caught before a checkpoint holds its update.
            for name in ("loss", "update_norm"):
                if not math.isfinite(values[name]):
                    raise UserError(self._diverged(self.step + i + 1, name.replace("_", "'s "), values[name]))
            self.pending.append(values)
        self.step += count
        self.test_error = None
        self._show({"loss": values["loss"], "images_per_second": self._rate()}, line=False)

    def _diverged(self, step: int, name: str, value: float) -> str:
        last = [line["step"] for line in self.record.lines()]
        kept = f"the record up to step {last[-1]} is kept" if last else "nothing was recorded before it"
        return (
            f"the {name} became {value} at step {step}; {kept} in {self.record.workdir}. "
            "A lower config.optimizer.learning_rate or a config.schedule.warmup may help; choose a new workdir for it"
        )

    def _log(self) -> None:
        """Writes one training line, the mean over the steps since the last one."""
        mean = {name: float(np.mean([p[name] for p in self.pending])) for name in self.pending[0]}
        line = {
            "loss": mean["loss"],
            "train_error": 100 * mean["error"],
            "learning_rate": self.pending[-1]["learning_rate"],
            "gradient_norm": mean["gradient_norm"],
            "update_norm": mean["update_norm"],
            "images_per_second": self._rate(),
        }
        self.record.append(self.step, line)
        self._show(line, line=True)
        self.pending, self.timed_steps, self.timed_seconds = [], 0, 0.0

    def _rate(self) -> float:
        return self.timed_steps * self.config.batch_size / self.timed_seconds

    def _evaluate(self) -> None:
        line = evaluate_test(self.trainer.eval_step, self.state, self.trainer.pipeline)
        if not math.isfinite(line["test_loss"]):
            raise UserError(self._diverged(self.step, "test loss", line["test_loss"]))
        self.test_error = line["test_error"]
        self.record.append(self.step, line)
        self._show(line, line=True)

    def _show(self, values: Mapping[str, float], *, line: bool) -> None:
        self.shown |= values
        self.progress.update(self.step, self.shown, line=line)

    def _save(self) -> None:
        host = {"pending": self.pending, "seconds": self._seconds()}
        self.checkpoints.save(self.step, self.state, host, self.test_error)

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
            commit=self.commit,
            versions=provenance.versions(),
            hardware=provenance.hardware(list(self.trainer.mesh.devices.flat)),
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
