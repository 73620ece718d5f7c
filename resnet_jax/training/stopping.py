"""What ends a run early or turns it back: diverging losses, early stopping, signals."""

import dataclasses
import math
import os
import signal
import threading
from collections.abc import Iterable, Mapping, Sequence
from types import FrameType
from typing import Any

import jax
from jax.experimental import multihost_utils

from resnet_jax.data.sampling import batch_numbers
from resnet_jax.tasks.task import Task, spelt

#: How often `on_nan="rollback"` goes back before it gives up.
MAX_ROLLBACKS = 10

#: Share of the newest loss in the running average.
_NEWEST = 0.05

SIGNALS = (signal.SIGTERM, signal.SIGINT)


class Diverged(Exception):
    """Says that a step (from 1) must not be kept, and why."""

    def __init__(self, step: int, reason: str) -> None:
        super().__init__(reason)
        self.step = step


class LossGuard:
    """Tells a step that must not be kept from one that may.

    Attributes:
      average: running average of the loss; None before the first step. Checkpoints hold it.
    """

    def __init__(self, chance_loss: float, jump: float, average: float | None = None) -> None:
        """A loss may be at most `jump` times its average, or `chance_loss` if that is more; 0: any finite loss."""
        self._chance_loss, self._jump, self.average = chance_loss, jump, average

    def check(self, step: int, metrics: Mapping[str, float]) -> None:
        """Takes a step's loss into the average.

        Raises:
          Diverged: if the loss, the update or another metric is not finite, or the loss jumped.
        """
        # A loss that is finite can have a gradient that is not: found before a checkpoint holds its update.
        words = {"loss": "loss", "update_norm": "update's norm"}
        for name in (*words, *metrics):
            if not math.isfinite(metrics[name]):
                raise Diverged(step, f"the {words.get(name) or spelt(name)} became {metrics[name]}")
        loss = metrics["loss"]
        # Small losses scatter by large factors. Only a batch that is worse than guessing counts.
        usual = max(loss if self.average is None else self.average, self._chance_loss)
        if self._jump and loss > self._jump * usual:
            raise Diverged(step, f"the loss jumped to {loss:.4g} (on average it was {self.average:.4g})")
        self.average = loss if self.average is None else self.average + _NEWEST * (loss - self.average)


class SkippedBatches:
    """The batches that a run leaves out since it went back.

    Attributes:
      records: one mapping each, as in skipped.json: `batch`, its number; `step`, `went_back_to` and `why`.
    """

    def __init__(self, records: Sequence[Mapping[str, Any]] = ()) -> None:
        self.records = [dict(record) for record in records]

    @property
    def numbers(self) -> list[int]:
        """Returns their numbers, in the order in which they were left out."""
        return [record["batch"] for record in self.records]

    def add(self, diverged: Diverged, went_back_to: int) -> int:
        """Leaves out the batch of the step that diverged, and returns its number."""
        batch = batch_numbers([diverged.step - 1], self.numbers)[0]
        self.records.append({"batch": batch, "step": diverged.step, "went_back_to": went_back_to, "why": str(diverged)})
        return batch


@dataclasses.dataclass
class EarlyStopping:
    """Watches whether the evaluations of a run still get better (Prechelt 1998).

    Attributes:
      task: whose best metric counts.
      patience: evaluations without a better one after which the run is over; 0: never.
      best_step: step of the best evaluation, the first of several alike; None ahead of the first.
      best: its metric, negated where higher is better.
      waited: evaluations since.
    """

    task: Task
    patience: int
    best_step: int | None = None
    best: float = math.inf
    waited: int = 0

    @classmethod
    def from_lines(cls, task: Task, patience: int, lines: Iterable[Mapping[str, Any]]) -> "EarlyStopping":
        """Returns what the lines of metrics.jsonl come to. They are all that it depends on."""
        found = cls(task, patience)
        for line in lines:
            if task.best_metric in line:
                found.update(line["step"], line)
        return found

    def update(self, step: int, metrics: Mapping[str, float]) -> bool:
        """Takes in an evaluation, and returns whether it is the best so far."""
        value = metrics[self.task.best_metric] * (1 if self.task.lower_is_better else -1)
        if value < self.best:
            self.best_step, self.best, self.waited = step, value, 0
            return True
        self.waited += 1
        return False

    @property
    def over(self) -> bool:
        """Returns whether the run should end."""
        return 0 < self.patience <= self.waited


class StopRequest:
    """Turns the first SIGTERM or SIGINT, inside a `with`, into a request to stop. A second SIGINT stops at once.

    Schedulers send SIGTERM some seconds before SIGKILL, and a person presses Ctrl-C. Python catches signals in the main
    thread alone: in any other, nothing changes.

    Of several processes, whichever gets the signal, all stop after the same step: JAX's runtime catches SIGTERM itself
    and tells the others.

    Attributes:
      signal: the signal that came, if one did.
    """

    def __init__(self) -> None:
        self.signal: signal.Signals | None = None
        self._previous: dict[signal.Signals, Any] = {}
        # Not jax.process_count(): that would take hold of the devices, also for a launcher of runs.
        self._several = jax.distributed.is_initialized()
        self._dispatches = 0
        self._asked = False  # by JAX's sync point, which says it of one dispatch alone

    def __enter__(self) -> "StopRequest":
        if threading.current_thread() is threading.main_thread():
            caught = (signal.SIGINT,) if self._several else SIGNALS
            self._previous = {number: signal.signal(number, self._note) for number in caught}
        return self

    def __exit__(self, *exception: object) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def reached(self) -> bool:
        """Returns whether to stop now. Every process asks behind each dispatch, and gets the same answer."""
        self._dispatches += 1
        if not self._several:
            return self.signal is not None
        if multihost_utils.reached_preemption_sync_point(self._dispatches):
            self.signal, self._asked = self.signal or signal.SIGTERM, True
        return self._asked  # a dispatch that is given up for its loss does not stop: the next one does

    def _note(self, number: int, frame: FrameType | None) -> None:
        if self.signal is not None and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.signal = signal.Signals(number)
        if self._several:
            os.kill(os.getpid(), signal.SIGTERM)
