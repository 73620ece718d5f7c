"""`Run`: one run in progress, a dispatch of steps at a time."""

import math
import time
from collections.abc import Generator, Mapping

import numpy as np

from resnet_jax.errors import Stopped, UserError
from resnet_jax.training import provenance
from resnet_jax.training.checkpoint import Checkpoints, Restored
from resnet_jax.training.distributed import agreed
from resnet_jax.training.divergence import MOST_ROLLBACKS, Diverged, LeftOut, last_words
from resnet_jax.training.early_stopping import EarlyStopping
from resnet_jax.training.loss import guessing_loss
from resnet_jax.training.mesh import platform, replicated
from resnet_jax.training.progress import ProgressDisplay
from resnet_jax.training.record import Result, RunRecord
from resnet_jax.training.result import make_result
from resnet_jax.training.step import evaluate_test
from resnet_jax.training.stepper import Dispatch, Programs, Stepper
from resnet_jax.training.stop import StopRequest
from resnet_jax.training.trainer import Trainer
from resnet_jax.training.watch import LossWatch, Trace, memory


class Run:
    """One run in progress: the state, and what the host counts beside it.

    Whoever drives it computes what `steps` asks for, so that one program can serve several runs (`loop.drive`).

    Attributes:
      trainer, config, record, checkpoints: of the run.
      step: steps done.
      state: after them.
    """

    def __init__(
        self,
        trainer: Trainer,
        record: RunRecord,
        checkpoints: Checkpoints,
        progress: ProgressDisplay,
        stop: StopRequest,
        programs: Programs,
        began: float,
        runs_at_once: int = 1,
    ) -> None:
        """Takes up the newest checkpoint, if there is one.

        Args:
          trainer: the run's parts.
          record, checkpoints: its folder's, which is its own.
          progress: what to show.
          stop: whether to stop.
          programs: that compute its steps, and perhaps those of others.
          began: of `time.monotonic`, for the run's seconds.
          runs_at_once: how many share the programs.
        """
        self.began, self.runs_at_once = began, runs_at_once
        # As it is now: a long run may see later commits.
        self.commit = provenance.commit()
        self.trainer, self.config = trainer, trainer.config
        self.record, self.checkpoints, self.progress, self.stop = record, checkpoints, progress, stop
        self.stepper = Stepper(trainer, programs)
        self.trace = Trace(self.config.profile_steps, record.workdir / "profile")
        self.skipped = LeftOut(agreed(record.skipped))
        self.earlier_seconds = 0.0  # of the parts of the run before it was resumed
        self.dispatches = 0
        self.shown: dict[str, float] = {}
        restored = self._go_back()
        if restored is not None:
            self.earlier_seconds = restored.host["seconds"]
        self.damaged = restored.damaged if restored is not None else ()
        agreed(lambda: record.adopt(trainer.config))
        self._truncate()

    def _go_back(self) -> Restored | None:
        """Takes up the newest checkpoint, or the state before the first step."""
        self.stepper.drop()
        self.state = self.trainer.random_init()
        self.pending: list[dict[str, float]] = []  # steps since the last training line
        average = None
        restored = self.checkpoints.restore(self.state, replicated(self.trainer.mesh))
        if restored is not None:
            self.state, self.pending = restored.state, list(restored.host["pending"])
            average = restored.host.get("loss_average")
        elif self.config.init_from is not None:
            self.state = self.trainer.init()
        self.step = int(self.state.step)
        guessing = guessing_loss(self.config.loss, self.trainer.num_classes)
        self.watch = LossWatch(guessing, self.config.loss_jump, average)
        self.test_error: float | None = None  # at this very step
        self.saved = time.monotonic()
        return restored

    def _truncate(self) -> None:
        """Drops the lines past the step, and what they said."""
        agreed(lambda: self.record.truncate(self.step))
        self.stopping = EarlyStopping.of_lines(self.config.early_stopping.patience, agreed(self.record.lines))

    def steps(self) -> Generator[Dispatch, None, Result]:
        """Trains to the end, or to the signal that stops it.

        Yields:
          Steps that are to be dispatched before it goes on.

        Returns:
          The result.

        Raises:
          UserError: for a loss that is not finite or jumps, and for a record that cannot be written.
          Stopped: after a signal, with the state saved.
        """
        config = self.config
        self.progress.start(f"{config.model.name} seed {config.seed}", self.step, config.steps)
        for sentence in self.damaged:
            self.progress.note(f"{sentence}; it was moved aside, and training goes on from step {self.step}")
        for note in self.trainer.notes():
            self.progress.note(note)
        try:
            while self.step < config.steps and not self.stopping.over:
                try:
                    count = self._next_count()
                    self.trace.before(self.step, count)
                    dispatch = self.stepper.prepare(self.state, self.step, count, self.skipped.numbers)
                    yield dispatch
                    self.state, metrics = dispatch.take()
                    self.stepper.dispatched(self.step, count, metrics)
                    self._advance(count)
                except Diverged as diverged:
                    self._roll_back(diverged)
        finally:
            self.trace.stop()
        return self._result()

    def _advance(self, count: int) -> None:
        """Does what is due behind the `count` steps that are under way."""
        self.step += count
        self.dispatches += 1
        self.test_error = None
        config = self.config
        log, evaluate, save = map(self._due, (config.log_every, config.eval_every, config.checkpoint_every))
        stop = self.stop.reached(self.dispatches) and self.step < config.steps
        # One dispatch stays under way while the next is prepared, but nothing is written ahead of what it says.
        self._collect(0 if log or evaluate or save or stop or self.trace.is_last(self.step) else 1)
        if self.trace.is_last(self.step):
            self.trace.stop()
        if log:
            self._log()
        if evaluate and self._evaluate() and self.stopping.patience:
            save = True  # the best weights so far, which may be those that the run ends with
        if save or (log and self._minutes_are_over()):
            self._save()
        if stop:
            self._save()
            self.checkpoints.wait()  # before it is said to be saved
            name = self.stop.signal.name if self.stop.signal else "asked to stop"
            raise Stopped(
                f"{name} after step {self.step} of {config.steps}; the state is saved in "
                f"{self.record.workdir}, and the same command goes on from there"
            )

    def _due(self, every: int) -> bool:
        return self.step % every == 0 or self.step == self.config.steps

    def _minutes_are_over(self) -> bool:
        """By the clock of process 0, so that all save together."""
        minutes = self.config.checkpoint_minutes
        return bool(minutes and agreed(lambda: time.monotonic() - self.saved >= 60 * minutes))

    def _next_count(self) -> int:
        """Steps of the next dispatch: the same number throughout, since each number compiles anew.

        Single steps lead up to a multiple of it where a run with another number was stopped between.
        """
        config = self.config
        on_cpu = platform(self.trainer.mesh) == "cpu"
        most = config.steps_per_dispatch or (1 if on_cpu else self.trainer.pipeline.steps_per_dispatch)
        # What is due falls between dispatches: the number divides all intervals.
        intervals = (config.log_every, config.eval_every, config.checkpoint_every)
        common = math.gcd(config.steps, *intervals, *self.trainer.pipeline.size_changes)
        count = max(divisor for divisor in range(1, min(most, common) + 1) if common % divisor == 0)
        return count if self.step % count == 0 else 1

    def _collect(self, leave: int) -> None:
        """Takes in the metrics of all dispatches but the newest `leave`."""
        for before, steps in self.stepper.collect(leave):
            for step, values in enumerate(steps, start=before + 1):
                if (complaint := self.watch.complaint(values)) is not None:
                    raise Diverged(step, complaint)
                self.pending.append(values)
            speed = self.stepper.meter.values(self.config.batch_size)
            self._show({"loss": values["loss"], **speed}, before + len(steps))

    def _roll_back(self, diverged: Diverged) -> None:
        """Goes back to the newest checkpoint and leaves out the batch, or ends the run."""
        what = f"{diverged} at step {diverged.step}"
        if self.config.on_nan != "rollback" or len(self.skipped) >= MOST_ROLLBACKS:
            raise UserError(self._end(what)) from diverged
        self.checkpoints.wait()
        restored = self._go_back()
        for sentence in restored.damaged if restored is not None else ():
            self.progress.note(f"{sentence}; it was moved aside")
        batch = self.skipped.add(diverged, went_back_to=self.step)
        self._truncate()
        agreed(lambda: self.record.skip(self.skipped.batches))
        self.progress.note(f"{what}; going back to step {self.step} and leaving out batch {batch}")

    def _end(self, what: str) -> str:
        return last_words(what, self.skipped, self.checkpoints.steps(), self.record.workdir)

    def _log(self) -> None:
        """Writes one training line, the mean over the steps since the last one."""
        for sentence in self.trainer.pipeline.warnings():
            self.progress.note(sentence)
        mean = {name: float(np.mean([p[name] for p in self.pending])) for name in self.pending[0]}
        line = {
            "loss": mean["loss"],
            "train_error": 100 * mean["error"],
            "learning_rate": self.pending[-1]["learning_rate"],
            "gradient_norm": mean["gradient_norm"],
            "update_norm": mean["update_norm"],
            **self.stepper.meter.values(self.config.batch_size),
            **memory(list(self.trainer.mesh.devices.flat)),
        }
        agreed(lambda: self.record.append(self.step, line))
        self._show(line, self.step, line=True)
        self.pending = []
        self.stepper.meter.reset()

    def _evaluate(self) -> bool:
        """Writes one line of the error; whether it is the lowest so far."""
        line = evaluate_test(self.trainer.eval_step, self.state, self.trainer.pipeline, self.trainer.mesh)
        if not math.isfinite(line["test_loss"]):
            raise UserError(self._end(f"the test loss became {line['test_loss']} at step {self.step}"))
        self.test_error = line["test_error"]
        agreed(lambda: self.record.append(self.step, line))
        self._show(line, self.step, line=True)
        return self.stopping.saw(self.step, line["test_error"])

    def _show(self, values: Mapping[str, float], step: int, *, line: bool = False) -> None:
        self.shown |= values
        self.progress.update(step, self.shown, line=line)

    def _save(self) -> None:
        # The lines ahead of a checkpoint must be as safe as it: a power loss must not take them alone.
        agreed(self.record.sync)
        host = {"pending": self.pending, "seconds": self._seconds(), "loss_average": self.watch.average}
        # With early stopping, the first of several equal errors must stay the best: the others are not told.
        told = self.test_error if not self.stopping.patience or self.step == self.stopping.best else None
        self.checkpoints.save(self.step, self.state, host, told)
        self.saved = time.monotonic()

    def _seconds(self) -> float:
        return self.earlier_seconds + time.monotonic() - self.began

    def _result(self) -> Result:
        lines, kept = agreed(self.record.lines), self.step
        if self.stopping.patience and self.stopping.best is not None:
            kept = self.stopping.best
            self.checkpoints.drop_after(kept)
        return make_result(
            self.trainer, lines, seconds=self._seconds(), commit=self.commit, skipped_batches=len(self.skipped),
            stopped_step=self.step, kept_step=kept, runs_at_once=self.runs_at_once,
        )  # fmt: skip
