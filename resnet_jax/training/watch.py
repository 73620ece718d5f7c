"""What can go wrong while a run trains, and what it takes: losses that jump, memory, profiler traces."""

import math
import resource
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import jax

#: Share of the newest loss in the running average.
_NEWEST = 0.05

GIB = 2**30


class LossWatch:
    """Tells a step that must not be kept from one that may.

    Attributes:
      average: running average of the loss; None before the first step. A checkpoint carries it.
    """

    def __init__(self, guessing: float, jump: float, average: float | None = None) -> None:
        """`jump` is how many times its average, and that of `guessing`, a loss may be; 0: any number."""
        self._guessing, self._jump, self.average = guessing, jump, average

    def complaint(self, values: Mapping[str, float]) -> str | None:
        """What is wrong with a step's metrics, or None; then the loss enters the average."""
        # A loss that is finite can have a gradient that is not: caught before a checkpoint holds its update.
        for name, words in (("loss", "loss"), ("update_norm", "update's norm")):
            if not math.isfinite(values[name]):
                return f"the {words} became {values[name]}"
        loss = values["loss"]
        # Small losses scatter by large factors: a batch that is worse than guessing is meant.
        usual = max(loss if self.average is None else self.average, self._guessing)
        if self._jump and loss > self._jump * usual:
            return f"the loss jumped to {loss:.4g} (on average it was {self.average:.4g})"
        self.average = loss if self.average is None else self.average + _NEWEST * (loss - self.average)
        return None


def memory(devices: Sequence[jax.Device]) -> dict[str, float]:
    """Largest use so far in GiB: `device_memory` of the fullest of this process's devices, where they report it (CPU
    devices do not), and `host_memory` of this process."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    found = {"host_memory": round(peak / GIB, 3)}
    stats = [d.memory_stats() for d in devices if d.process_index == jax.process_index()]
    if used := [s["peak_bytes_in_use"] for s in stats if s and "peak_bytes_in_use" in s]:
        found["device_memory"] = round(max(used) / GIB, 3)
    return found


class Trace:
    """A profiler trace of the steps from `first` to `last`, in whole dispatches, for XProf and Perfetto."""

    def __init__(self, steps: Sequence[int], directory: Path) -> None:
        """`steps` is (first, last), from 1, or empty for no trace. Process 0 writes; the others go along with it."""
        self._writes = jax.process_index() == 0
        self._first, self._last = steps or (0, 0)
        self._directory, self.running = directory, False

    def before(self, step: int, count: int) -> None:
        """Begins if one of the `count` steps after `step` is the first or past it, and not past the last."""
        if not self.running and self._first <= step + count and step < self._last:
            if self._writes:
                jax.profiler.start_trace(str(self._directory))
            self.running = True

    def is_last(self, step: int) -> bool:
        """Whether the trace ends with this step: what is under way must be waited for, then `stop`."""
        return self.running and step >= self._last

    def stop(self) -> None:
        """Writes the trace, if one is running."""
        if self.running:
            if self._writes:
                jax.profiler.stop_trace()
            self.running = False
