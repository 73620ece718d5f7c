"""The training loop: restore, step, log, evaluate, save, stop."""

import contextlib
import math
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import jax
import numpy as np
from flax import linen as nn
from ml_collections import ConfigDict

from resnet_jax.config import flatten
from resnet_jax.errors import Stopped, UserError, unknown_name
from resnet_jax.tasks.task import Task
from resnet_jax.training.checkpoint import Checkpoints
from resnet_jax.training.config_checks import validate_config
from resnet_jax.training.distributed import agreed, check_batch, explain_lost_process, make_mesh, replicated, together
from resnet_jax.training.load_weights import resolve_in
from resnet_jax.training.progress import ProgressDisplay
from resnet_jax.training.result import Result, commit, make_result
from resnet_jax.training.run_folder import CHECKPOINTS, RunFolder
from resnet_jax.training.step import TrainState
from resnet_jax.training.stepper import Stepper, Trace, memory, steps_to_dispatch
from resnet_jax.training.stopping import MAX_ROLLBACKS, Diverged, EarlyStopping, LossGuard, SkippedBatches, StopRequest
from resnet_jax.training.trainer import Trainer, make_trainer


def fit(
    config: ConfigDict,
    workdir: str | Path,
    progress: ProgressDisplay | None = None,
    devices: Sequence[jax.Device] | None = None,
    force: Collection[str] = (),
    task: Task | None = None,
    model: nn.Module | None = None,
) -> Result:
    """Trains a net as the config says and records the run in `workdir`.

    A finished run is only read; an unfinished one goes on from its newest checkpoint. Several processes (see
    `distributed.initialize`) call it alike, with a `workdir` that all of them see; process 0 writes the record.

    Args:
      config: the fields of `config.base_config`.
      workdir: the run's folder, made if needed.
      progress: what to show meanwhile; nothing by default.
      devices: devices to train on, all by default.
      force: fields in which the config may differ from that of the run in `workdir`, which then goes on with it.
      task, model: what is trained for, and a net of the user's own; see `trainer.make_trainer`.

    Returns:
      The result, as in `result.json`.

    Raises:
      UserError: for a config that cannot be run, a folder that holds another run or cannot be written to or is in
        use, and for a loss that is not finite or jumps.
      Stopped: after SIGTERM or SIGINT, with the state saved; as `ProcessLost` if another process is gone.
    """
    began = time.monotonic()
    validate_config(config)
    for name in force:
        if name not in flatten(config):
            raise unknown_name("config field", name, flatten(config))
    progress = progress or ProgressDisplay()
    folder = RunFolder(workdir)
    with explain_lost_process(folder.workdir):
        config, weights = resolve_in(folder, config, force)
        if (finished := agreed(partial(_finished_result, folder, config, force))) is not None:
            return Result.from_json(finished)
        check_batch(make_mesh(devices), config.batch_size, config.accumulate)
        trainer = together(lambda: make_trainer(config, devices, weights, task, model))
        with StopRequest() as stop, _opened(folder, trainer) as checkpoints:
            result = train(Run(trainer, folder, checkpoints, progress, began), stop)
        # Only now: a signal may end the process again, and the last checkpoint is on disk.
        agreed(partial(folder.finish, result))
        return result


def train(run: "Run", stop: StopRequest) -> Result:
    """Trains from the newest checkpoint to the end, or until the run stops.

    Raises:
      UserError: for a loss that is not finite or jumps, and for a record that cannot be written.
      Stopped: when `stop` asks for it, with the state saved.
    """
    config, progress = run.trainer.config, run.progress
    damage = run.restore()
    progress.start(f"{config.model.name} seed {config.seed}", run.step, config.steps, run.trainer.task.shown)
    for note in (*damage, *run.trainer.notes()):
        progress.note(note)
    trace = Trace(config.profile_steps, run.folder.workdir / "profile")
    with Stepper(run.trainer, lambda: progress.status("compiling"), trace) as stepper:
        while run.step < config.steps and not run.early_stopping.over:
            count = steps_to_dispatch(run.trainer, run.step)
            run.state = stepper.advance(run.state, run.step, count, run.skipped.numbers)
            run.step += count
            log, evaluate, save = (
                run.step % every == 0 or run.step == config.steps
                for every in (config.log_every, config.eval_every, config.checkpoint_every)
            )
            stop_now = stop.reached() and run.step < config.steps
            # One dispatch stays under way while the next is prepared, but nothing is written ahead of its metrics.
            wait = log or evaluate or save or stop_now
            try:
                run.take_in(stepper, leave=0 if wait else 1)
            except Diverged as diverged:
                stepper.drop()
                run.go_back(diverged)
                continue
            if log:
                run.log(stepper)
                save = save or run.is_time_to_save()
            evaluated = run.evaluate() if evaluate else {}
            # With early stopping the best weights so far may be those that the run ends with.
            if save or stop_now or run.is_best:
                run.save(evaluated)
            if stop_now:
                raise run.stopped(stop)
    return run.result()


class Run:
    """Holds a run under way: where it is, and what it does between the steps.

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

    def __init__(
        self, trainer: Trainer, folder: RunFolder, checkpoints: Checkpoints, progress: ProgressDisplay, began: float
    ) -> None:
        """Prepares a run; `began` is when its command did, of `time.monotonic`."""
        self.trainer, self.folder, self.checkpoints, self.progress = trainer, folder, checkpoints, progress
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
        """
        trainer, folder = self.trainer, self.folder
        like = trainer.random_init()
        restored = self.checkpoints.restore(like, replicated(trainer.mesh))
        host: dict[str, Any] = restored.host if restored else {"pending": [], "seconds": 0.0}
        self.state = restored.state if restored else trainer.init(like)
        self.step = int(self.state.step)
        self.pending, self._saved = list(host["pending"]), time.monotonic()
        self.loss_guard = LossGuard(trainer.task.chance_loss, trainer.config.loss_jump, host.get("loss_average"))
        agreed(lambda: folder.replace_config(trainer.config))
        agreed(lambda: folder.truncate(self.step))
        patience = trainer.config.early_stopping.patience
        self.early_stopping = EarlyStopping.from_lines(trainer.task, patience, agreed(folder.lines))
        if self._earlier_seconds is None:  # whatever the run goes back to, this process's own time counts on
            self._earlier_seconds = host["seconds"]
        damaged = restored.damaged if restored else ()
        return [f"{what}; it was moved aside, and training goes on from step {self.step}" for what in damaged]

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
        for warning in self.trainer.pipeline.warnings():
            self.progress.note(warning)
        line = _training_line(self.trainer.task, self.pending)
        self._record(line | stepper.timing() | memory(list(self.trainer.mesh.devices.flat)))
        self.pending = []
        stepper.reset_timing()

    def is_time_to_save(self) -> bool:
        """Returns whether a checkpoint is due by the clock: that of process 0, so that all save together."""
        minutes = self.trainer.config.checkpoint_minutes
        return bool(minutes) and agreed(lambda: time.monotonic() >= self._saved + 60 * minutes)

    def evaluate(self) -> dict[str, float]:
        """Evaluates the net, writes the line, and returns its metrics.

        Raises:
          UserError: for one that is not finite.
        """
        metrics = self.trainer.evaluate(self.state)
        for name, value in metrics.items():
            if not math.isfinite(value):
                raise self._diverged(f"the {name.replace('_', ' ')} became {value} at step {self.step}")
        self._record(metrics)
        self.early_stopping.update(self.step, metrics)
        return metrics

    def save(self, evaluated: Mapping[str, float]) -> None:
        """Saves a checkpoint, with the metrics of the evaluation at this step if there was one."""
        # The lines ahead of a checkpoint must be as safe as it: a power loss must not take them alone.
        agreed(self.folder.sync)
        host = {"pending": self.pending, "seconds": self.seconds, "loss_average": self.loss_guard.average}
        # With early stopping, the first of several equal evaluations must stay the best.
        counts = self.is_best or not self.early_stopping.patience
        self.checkpoints.save(self.step, self.state, host, evaluated if counts else {})
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
        kept = self.step
        if self.early_stopping.patience and self.early_stopping.best_step is not None:
            kept = self.early_stopping.best_step
            self.checkpoints.drop_after(kept)
        skipped = len(self.skipped.records)
        return make_result(
            self.trainer, agreed(self.folder.lines), self._commit, self.seconds, skipped, self.step, kept
        )

    def _record(self, line: Mapping[str, float]) -> None:
        agreed(partial(self.folder.append, self.step, line))
        self.progress.update(self.step, line, line=True)

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


@contextlib.contextmanager
def _opened(folder: RunFolder, trainer: Trainer) -> Iterator[Checkpoints]:
    """Locks a run's folder and opens its checkpoints, and closes both however the run ends."""
    try:
        agreed(lambda: folder.open(trainer.config))
        agreed(lambda: folder.write_dataset_info(trainer.dataset_info()))
        task = trainer.task
        checkpoints = Checkpoints(
            folder.workdir / CHECKPOINTS, trainer.config.keep_checkpoints, task.best_metric, task.lower_is_better
        )
        try:
            yield checkpoints
        except BaseException as error:
            # Of several processes, one that fails alone must not wait for the others, who wait for it.
            if jax.process_count() == 1 or isinstance(error, UserError | Stopped):
                with contextlib.suppress(UserError):  # the first error says more than that of a checkpoint behind it
                    checkpoints.close()
            raise
        checkpoints.close()
    except BaseException:
        folder.close()
        raise


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


def _finished_result(folder: RunFolder, config: ConfigDict, force: Collection[str]) -> dict[str, Any] | None:
    """Returns the result of a finished run of this config as JSON."""
    if not folder.holds(config, force) or (result := folder.result()) is None:
        return None
    return result.to_json()
