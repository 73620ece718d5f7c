"""Profiler traces, and how much memory a run takes."""

import contextlib
import resource
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import jax

GIB = 2**30


class Trace:
    """Records a profiler trace of the steps from `first` to `last`, in whole dispatches, for XProf and Perfetto."""

    def __init__(self, steps: Sequence[int], directory: Path) -> None:
        """`steps` is (first, last), from 1, or empty for no trace. Process 0 writes it."""
        self._first, self._last = steps or (0, 0)
        self._directory, self.running = directory, False

    def start(self, step: int, count: int) -> None:
        """Starts if the `count` steps after `step` reach the first, and the last is not done yet."""
        if not self.running and self._first <= step + count and step < self._last:
            if jax.process_index() == 0:
                jax.profiler.start_trace(str(self._directory))
            self.running = True

    def ends(self, step: int) -> bool:
        """Returns whether the trace ends with this step. What is under way must be waited for ahead of `stop`."""
        return self.running and step >= self._last

    def stop(self) -> None:
        """Writes the trace, if one is running."""
        if self.running:
            if jax.process_index() == 0:
                jax.profiler.stop_trace()
            self.running = False


@contextlib.contextmanager
def profiled(steps: Sequence[int], directory: Path) -> Iterator[Trace]:
    """Gives a `Trace` that is written however the block ends."""
    trace = Trace(steps, directory)
    try:
        yield trace
    finally:
        trace.stop()


def memory(devices: Sequence[jax.Device]) -> dict[str, float]:
    """Returns the largest use so far in GiB.

    `device_memory` is that of the fullest of this process's devices, where they report it (CPUs do not), and
    `host_memory` that of this process.
    """
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    found = {"host_memory": round(peak / GIB, 3)}
    stats = [d.memory_stats() for d in devices if d.process_index == jax.process_index()]
    if used := [s["peak_bytes_in_use"] for s in stats if s and "peak_bytes_in_use" in s]:
        found["device_memory"] = round(max(used) / GIB, 3)
    return found
