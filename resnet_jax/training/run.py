"""A run under way: where it is, and what it does between the steps."""

import datetime
import math
import statistics
import time
from collections.abc import Collection, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np

from resnet_jax.config import config_hash
from resnet_jax.errors import Stopped, UserError
from resnet_jax.tasks.task import Task, spelt
from resnet_jax.training.checkpoint import Checkpoints, Restored
from resnet_jax.training.computation import changes, computation, go_on
from resnet_jax.training.distributed import agreed, replicated
from resnet_jax.training.progress import ProgressDisplay
from resnet_jax.training.result import Result, commit, hardware, last_epoch_means, versions
from resnet_jax.training.run_folder import RunFolder
from resnet_jax.training.step import TrainState
from resnet_jax.training.stepper import Stepper, memory
from resnet_jax.training.stopping import MAX_ROLLBACKS, Diverged, EarlyStopping, LossGuard, SkippedBatches, StopRequest
from resnet_jax.training.trainer import Trainer


class Run:
    """Holds a run under way, and does what comes between its steps; every process calls its methods alike.

    Attributes:
      trainer, folder, checkpoints, progress: its parts, its record, and what to show.
      state, step: the training state, and the steps that led to it; `restore` sets them.
      pending: metrics of the steps since the last training line.
      loss_guard, early_stopping, skipped: see `stopping`.
    """

    state: TrainState
    step: int
    pending: list[dict[str, float]]
    loss_guard: LossGuard
    early_stopping: EarlyStopping

    def __init__(self, trainer: Trainer, folder: RunFolder, checkpoints: Checkpoints, progress: ProgressDisplay,
                 began: float, force: Collection[str] = ()) -> None:  # fmt: skip
        """Prepares a run.

        Args:
          trainer, folder, checkpoints, progress: as above.
          began: when its command did, of `time.monotonic`.
          force: as `loop.fit` takes it.
        """
        self.trainer, self.folder, self.checkpoints, self.progress = trainer, folder, checkpoints, progress
        self._force = force
        self.skipped = SkippedBatches(agreed(folder.skipped_batches))
        self._commit = commit()  # now: a long run may see later commits
        self._began = began
        self._earlier_seconds: float | None = None

    @property
    def seconds(self) -> float:
        """Returns how long the run has taken, with its earlier parts."""
        return (self._earlier_seconds or 0.0) + time.monotonic() - self._began

    @property
    def is_best(self) -> bool:
        """Returns whether early stopping would keep the weights of this step: the first of several equally good."""
        return bool(self.early_stopping.patience) and self.step == self.early_stopping.best_step

    def restore(self) -> list[str]:
        """Goes to the newest checkpoint, or to the state before step 1, and drops the lines past it.

        Returns:
          A sentence for each newer checkpoint that could not be read.

        Raises:
          UserError: if fields were changed, and no step is left to be done with them.
        """
        trainer, folder = self.trainer, self.folder
        like = trainer.random_init()
        restored, notes = self._newest(like)
        host: dict[str, Any] = restored.host if restored else {"pending": [], "seconds": 0.0}
        self.state = restored.state if restored else trainer.init(like)
        self.step = int(self.state.step)
        self.pending, self._saved = list(host["pending"]), time.monotonic()
        self.loss_guard = LossGuard(trainer.task.chance_loss, trainer.config.loss_jump, host.get("loss_average"))
        now = computation(list(trainer.mesh.devices.flat))
        self._computed: list[dict[str, Any]] = agreed(
            lambda: go_on(host.get("computed", ()), self.step, now, self._force)
        )
        self._take_in_lines(self.step)
        agreed(self._check_changes)
        info = trainer.dataset_info()
        agreed(lambda: folder.replace_config(trainer.config, self.step, info))
        agreed(lambda: folder.truncate(self.step))
        if self._earlier_seconds is None:  # whatever the run goes back to, this process's own time counts on
            self._earlier_seconds = host["seconds"]
        other = changes(self._computed)
        return [*(f"{note}; training goes on from step {self.step}" for note in notes), *([other] if other else [])]

    def _newest(self, like: TrainState) -> tuple[Restored | None, list[str]]:
        """Returns the newest checkpoint to go on from, and a sentence for each that is lost.

        With early stopping, the run may end with the weights of the best step so far: where its checkpoint is lost,
        training goes on from ahead of it, and makes it again.
        """
        sharding, notes = replicated(self.trainer.mesh), list[str]()
        while (restored := self.checkpoints.restore(like, sharding)) is not None:
            notes += [f"{what}; it was moved aside" for what in restored.damaged]
            self._take_in_lines(int(restored.state.step))
            best = self.early_stopping.best_step
            if not self.early_stopping.patience or best in (None, int(restored.state.step)):
                return restored, notes
            if self.checkpoints.can_read(best, like, sharding):
                return restored, notes
            notes.append(
                f"the checkpoint of step {best}, which had the best {self._metric_in_words}, is lost or damaged; "
                "it and later ones were moved aside"
            )
            self.checkpoints.set_aside_from(best)
        return None, notes

    def _take_in_lines(self, step: int) -> None:
        """Reads the evaluations up to a step from the record, which is all that the best one depends on."""
        task, patience = self.trainer.task, self.trainer.config.early_stopping.patience
        lines = [line for line in agreed(self.folder.lines) if line["step"] <= step]
        self._scores = {line["step"]: line[task.best_metric] for line in lines if task.best_metric in line}
        self.early_stopping = EarlyStopping.from_lines(task, patience, lines)

    @property
    def _metric_in_words(self) -> str:
        return spelt(self.trainer.task.best_metric)

    def _check_changes(self) -> None:
        """Raises UserError for changed fields or images where no step would be done with them: the result would be of
        others.
        """
        config = self.trainer.config
        differing = self.folder.differing(config, self.trainer.dataset_info())
        if differing and self.step and (self.step >= config.steps or self.early_stopping.over):
            raise UserError(
                f"the weights in workdir {self.folder.workdir} are of step {self.step}, and config.steps="
                f"{config.steps}: no step would be done with the changed {', '.join(differing)}; choose another "
                "workdir, or more steps"
            )

    def take_in(self, stepper: Stepper, leave: int) -> None:
        """Takes in the metrics of all dispatches but the newest `leave`, and shows the last.

        Raises:
          Diverged: for a step that must not be kept.
        """
        done = list(stepper.collect(leave))
        for step, metrics in done:
            self.loss_guard.check(step, metrics)
            self.pending.append(metrics)
        for step, metrics in done[-1:]:
            self.progress.update(step, {"loss": metrics["loss"], **stepper.timing()}, line=False)

    def go_back(self, diverged: Diverged) -> None:
        """Goes back to the newest checkpoint, and leaves out the batch of the step that diverged.

        Raises:
          UserError: if the config has such a run stop, or it went back too often.
        """
        what = f"{diverged} at step {diverged.step}"
        if self.trainer.config.on_nan != "rollback" or len(self.skipped.records) >= MAX_ROLLBACKS:
            raise self._diverged(what) from diverged
        self.checkpoints.wait()
        damage = self.restore()
        batch = self.skipped.add(diverged, went_back_to=self.step)
        agreed(lambda: self.folder.write_skipped(self.skipped.records))
        for note in (f"{what}; going back to step {self.step} and leaving out batch {batch}", *damage):
            self.progress.note(note)

    def log(self, stepper: Stepper) -> None:
        """Writes the training line of the steps since the last one."""
        self._tell_unreadable()
        line = _training_line(self.trainer.task, self.pending)
        self._record(line | stepper.timing() | memory(list(self.trainer.mesh.devices.flat)))
        self.pending = []
        stepper.reset_timing()

    def is_time_to_save(self) -> bool:
        """Returns whether a checkpoint is due by the clock: that of process 0, so that all save together."""
        minutes = self.trainer.config.checkpoint_minutes
        return bool(minutes) and agreed(lambda: time.monotonic() >= self._saved + 60 * minutes)

    def evaluate(self) -> None:
        """Evaluates the net and writes the line.

        Raises:
          UserError: for one that is not finite.
        """
        metrics = self.trainer.evaluate(self.state)
        self._tell_unreadable(metrics.get("unreadable", 0))
        for name, value in metrics.items():
            if not math.isfinite(value):
                raise self._diverged(f"the {name.replace('_', ' ')} became {value} at step {self.step}")
        self._record(metrics)
        self.early_stopping.update(self.step, metrics)
        self._scores[self.step] = metrics[self.trainer.task.best_metric]

    def save(self) -> None:
        """Saves a checkpoint."""
        # The lines ahead of a checkpoint must be as safe as it: a power loss must not take them alone.
        agreed(self.folder.sync)
        host = {
            "pending": self.pending, "seconds": self.seconds, "loss_average": self.loss_guard.average,
            "computed": self._computed,
        }  # fmt: skip
        self.checkpoints.save(self.step, self.state, host, self._scores)
        self._saved = time.monotonic()

    def stopped(self, stop: StopRequest) -> Stopped:
        """Returns what ends a run that was asked to stop, once its checkpoint is on disk."""
        self.checkpoints.wait()
        reason = stop.signal.name if stop.signal else "asked to stop"
        return Stopped(
            f"{reason} after step {self.step} of {self.trainer.config.steps}; the state is saved in "
            f"{self.folder.workdir}, and the same command goes on from there"
        )

    def result(self) -> Result:
        """Returns the result of a run that has come to its end; with early stopping, its best weights stay."""
        trainer, task, config, early = self.trainer, self.trainer.task, self.trainer.config, self.early_stopping
        kept = self.step
        if early.patience and early.best_step is not None:
            kept = early.best_step
            if not self.checkpoints.can_read(kept, self.state, replicated(trainer.mesh)):
                raise UserError(
                    f"the checkpoint of step {kept}, which had the best {self._metric_in_words}, is lost or damaged in "
                    f"{self.folder.workdir}; the same command goes on from the one before it"
                )
            self.checkpoints.drop_after(kept)
        lines = agreed(self.folder.lines)
        tests = {line["step"]: line for line in lines if task.best_metric in line}
        best = (min if task.lower_is_better else max)(line[task.best_metric] for line in tests.values())
        rates = [line["images_per_second"] for line in lines if "images_per_second" in line]
        epoch = math.ceil(trainer.pipeline.train_size * config.data.repeats / config.batch_size)
        final = {name: value for name, value in tests[kept].items() if name not in ("step", "unreadable")}
        return Result(
            model=config.model.name,
            dataset=config.data.name,
            config_hash=config_hash(config),
            commit=self._commit,
            versions=versions(),
            hardware=hardware(list(trainer.mesh.devices.flat)),
            finished=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
            seed=config.seed,
            steps=config.steps,
            batch_size=config.batch_size,
            seconds=round(self.seconds, 1),
            images_per_second=round(statistics.median(rates), 1),
            depth=trainer.summary.depth,
            params=trainer.summary.params,
            flops=trainer.summary.flops,
            metrics=last_epoch_means(lines, epoch) | final | {f"best_{task.best_metric}": best},
            evaluated_on=trainer.evaluated_on,
            unreadable=int(tests[kept].get("unreadable", 0)),
            skipped_batches=len(self.skipped.records),
            stopped_step=self.step if early.patience else None,
            kept_step=kept if early.patience else None,
            changes=agreed(self.folder.changes),
            computed=self._computed,
            task=config.task,
        )

    def _record(self, line: Mapping[str, float]) -> None:
        agreed(partial(self.folder.append, self.step, line))
        self.progress.update(self.step, line, line=True)

    def _tell_unreadable(self, evaluated: float = 0) -> None:
        """Shows which images could not be read since the last time, and how many of those that are evaluated on."""
        warnings, pipeline = self.trainer.pipeline.warnings(), self.trainer.pipeline
        if warnings and evaluated:
            warnings.append(f"{evaluated} of the {pipeline.test_size:,} {pipeline.evaluated_on} images cannot be read: "
                            "they are shown grey, and count in the error")  # fmt: skip
        for warning in warnings:
            self.progress.note(warning)

    def _diverged(self, what: str) -> UserError:
        """Returns the error that ends a run that diverged; `what` says what happened, at which step."""
        steps = self.checkpoints.steps()
        last = f"the last good checkpoint is that of step {steps[-1]}" if steps else "there was no checkpoint yet"
        tried = f" after {len(self.skipped.records)} batches were left out" if self.skipped.records else ""
        return UserError(
            f"{what}{tried}; {last}, and the record is kept, in {self.folder.workdir}. A lower "
            "config.optimizer.learning_rate or a config.schedule.warmup may help, with a new workdir; "
            "config.on_nan=rollback leaves out such batches"
        )


def _training_line(task: Task, pending: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Returns the mean of the metrics over the steps since the last line."""
    means = {name: float(np.mean([metrics[name] for metrics in pending])) for name in pending[0]}
    general = ("loss", "learning_rate", "gradient_norm", "update_norm")
    of_task = task.train_metrics({name: value for name, value in means.items() if name not in general})
    return {
        "loss": means["loss"],
        **of_task,
        "learning_rate": pending[-1]["learning_rate"],
        "gradient_norm": means["gradient_norm"],
        "update_norm": means["update_norm"],
    }
