"""Dispatches training steps ahead of the devices, and measures them: their speed, their memory, a profiler trace."""

import collections
import math
import resource
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Self

import jax
from jax.sharding import Mesh
from ml_collections import ConfigDict

from resnet_jax.data.pipeline import Pipeline
from resnet_jax.data.shapes import StepShapes
from resnet_jax.errors import UserError, one_line
from resnet_jax.training.distributed import batch_sharded, platform
from resnet_jax.training.step import TrainState
from resnet_jax.training.trainer import Trainer

GIB = 2**30


class Stepper:
    """Compiles, dispatches and times the training steps of one run, inside a `with` if they are traced.

    Attributes:
      compiled: the programs by the shapes of their inputs.
    """

    def __init__(self, trainer: Trainer, on_compile: Callable[[], None] = lambda: None, trace: "Trace | None" = None
                 ) -> None:  # fmt: skip
        """Starts the measurement.

        Args:
          trainer: of the run.
          on_compile: called ahead of each compilation, which can take minutes.
          trace: which steps the profiler traces; none by default.
        """
        self.compiled: dict[Any, Any] = {}
        self._trainer, self._on_compile, self._trace = trainer, on_compile, trace or Trace((), Path())
        self._sharding = batch_sharded(trainer.mesh, axis=1)
        self._in_flight: collections.deque[tuple[int, int, Any]] = collections.deque()
        self.reset_timing()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self._trace.stop()

    def advance(self, state: TrainState, step: int, count: int, skipped: Sequence[int] = ()) -> TrainState:
        """Dispatches `count` steps from `step` on, without waiting for them, and returns the state behind them.

        Args:
          state: after `step` steps; its memory is given away.
          step: steps that are done.
          count: steps to dispatch.
          skipped: numbers of the batches that are left out.
        """
        self._trace.start(step, count)
        began = time.monotonic()
        pipeline = self._trainer.pipeline
        indices = pipeline.send(pipeline.train_inputs(step, count, skipped), self._sharding)
        # An upper bound on the devices' idle time: they may have run out of work at any moment of it.
        if not self._in_flight or all(value.is_ready() for value in self._in_flight[-1][2].values()):
            self._waited += time.monotonic() - began
        arguments = (state, pipeline.train, indices)
        shapes = tuple(x.shape for x in jax.tree.leaves(indices))
        if shapes not in self.compiled:
            compiling = time.monotonic()
            self._on_compile()
            self.compiled[shapes] = self._trainer.train_step.lower(*arguments).compile()
            self._compiled_for += (seconds := time.monotonic() - compiling)
            began += seconds
        with jax.profiler.StepTraceAnnotation("train", step_num=step):
            state, metrics = self.compiled[shapes](*arguments)
        self._in_flight.append((step, count, metrics))
        self._seconds += time.monotonic() - began
        return state

    def collect(self, leave: int = 0) -> Iterator[tuple[int, dict[str, float]]]:
        """Waits for all dispatches but the newest `leave`, and gives (step, its metrics) of their steps in order.

        Steps are counted from 1. At the end of a trace nothing is left under way.
        """
        ends = bool(self._in_flight) and self._trace.ends(sum(self._in_flight[-1][:2]))
        while len(self._in_flight) > (0 if ends else leave):
            step, count, metrics = self._in_flight.popleft()
            began = time.monotonic()
            values = jax.device_get(metrics)
            self._seconds += time.monotonic() - began
            self._steps += count
            for i in range(count):
                yield step + i + 1, {name: float(value[i]) for name, value in values.items()}
        if ends:
            self._trace.stop()

    def drop(self) -> None:
        """Forgets what is under way."""
        self._in_flight.clear()
        self.reset_timing()

    def reset_timing(self) -> None:
        """Starts the measurement of `timing` anew."""
        self._steps, self._seconds, self._waited, self._compiled_for = 0, 0.0, 0.0, 0.0

    def timing(self) -> dict[str, float]:
        """Returns the speed of the steps collected since the last reset.

        images_per_second; step_seconds; data_wait, the percent of the time in which the devices had nothing to do while
        the host prepared a batch; compile_seconds, which do not count in the others.
        """
        images = self._steps * self._trainer.config.batch_size
        return {
            "images_per_second": round(images / self._seconds, 1),
            "step_seconds": round(self._seconds / self._steps, 6),
            "data_wait": round(100 * self._waited / self._seconds, 2),
            "compile_seconds": round(self._compiled_for, 2),
        }


def steps_to_dispatch(config: ConfigDict, mesh: Mesh, pipeline: Pipeline | StepShapes, step: int = 0) -> int:
    """Returns the number of steps of the next dispatch, which is nearly always the same: each number compiles anew.

    Whatever is due falls between dispatches: the number divides all intervals. Single steps lead up to a multiple of
    it where a run was stopped in between with another number.
    """
    most = config.steps_per_dispatch or (1 if platform(mesh) == "cpu" else pipeline.steps_per_dispatch)
    intervals = (config.steps, config.log_every, config.eval_every, config.checkpoint_every)
    common = math.gcd(*intervals, *pipeline.size_changes)
    count = max(divisor for divisor in range(1, min(most, common) + 1) if common % divisor == 0)
    return count if step % count == 0 else 1


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
        """Writes the trace, if one is running.

        Raises:
          UserError: if it cannot be written, as on a full disk.
        """
        if self.running:
            self.running = False
            if jax.process_index() == 0:
                try:
                    jax.profiler.stop_trace()
                except (OSError, ValueError, RuntimeError) as error:
                    raise UserError(
                        f"cannot write the profiler trace to {self._directory}: {one_line(error)}"
                    ) from error


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
