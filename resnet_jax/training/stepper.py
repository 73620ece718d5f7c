"""Steps on their way through the devices: the host prepares the next dispatch while one is computed."""

import collections
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import jax

from resnet_jax.training.mesh import batch_sharded
from resnet_jax.training.state import TrainState
from resnet_jax.training.step import Metrics
from resnet_jax.training.trainer import Trainer


class Meter:
    """Seconds and steps since it was last read; compilation is kept apart."""

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        self.steps, self.seconds, self.wait_seconds, self.compile_seconds = 0, 0.0, 0.0, 0.0

    def values(self, batch_size: int) -> dict[str, float]:
        """images_per_second, step_seconds; data_wait: percent of the time in which the devices had nothing to do
        while the host prepared a batch; compile_seconds."""
        return {
            "images_per_second": round(self.steps * batch_size / self.seconds, 1),
            "step_seconds": round(self.seconds / self.steps, 6),
            "data_wait": round(100 * self.wait_seconds / self.seconds, 2),
            "compile_seconds": round(self.compile_seconds, 2),
        }


class Stepper:
    """Dispatches training steps and hands their metrics back in order.

    Attributes:
      meter: what they cost.
      compiled: the program for each number of steps in a dispatch.
    """

    def __init__(self, trainer: Trainer, on_compile: Callable[[], None] = lambda: None) -> None:
        """`on_compile` is called ahead of a compilation, which can take minutes."""
        self._trainer, self._on_compile = trainer, on_compile
        self.compiled: dict[Any, Any] = {}  # by the inputs' shapes
        self._in_flight: collections.deque[tuple[int, int, Metrics]] = collections.deque()
        self._sharding = batch_sharded(trainer.mesh, axis=1)
        self.meter = Meter()

    def advance(self, state: TrainState, step: int, count: int, skipped: Sequence[int] = ()) -> TrainState:
        """Dispatches `count` steps from `step` on, without waiting for them.

        Args:
          state: after `step` steps; it is donated.
          step, count: see there.
          skipped: numbers of the batches to leave out.

        Returns:
          The state after them.
        """
        trainer = self._trainer
        began = time.monotonic()
        inputs = trainer.pipeline.send(trainer.pipeline.train_inputs(step, count, skipped), self._sharding)
        ready = time.monotonic()
        # An upper bound: they may have run out of work at any moment of it.
        if not self._in_flight or _is_ready(self._in_flight[-1][2]):
            self.meter.wait_seconds += ready - began
        shapes = tuple(x.shape for x in jax.tree.leaves(inputs))
        if shapes not in self.compiled:
            self._on_compile()
            self.compiled[shapes] = trainer.train_step.lower(state, trainer.pipeline.train, inputs).compile()
            compiled = time.monotonic()
            self.meter.compile_seconds += compiled - ready
            began += compiled - ready
        with jax.profiler.StepTraceAnnotation("train", step_num=step):
            state, metrics = self.compiled[shapes](state, trainer.pipeline.train, inputs)
        self._in_flight.append((step, count, metrics))
        self.meter.seconds += time.monotonic() - began
        return state

    def collect(self, leave: int = 0) -> Iterator[tuple[int, list[dict[str, float]]]]:
        """Waits for all dispatches but the newest `leave`: (steps done before it, metrics of its steps), in order."""
        while len(self._in_flight) > leave:
            step, count, metrics = self._in_flight.popleft()
            began = time.monotonic()
            values = jax.device_get(metrics)
            self.meter.seconds += time.monotonic() - began
            self.meter.steps += count
            yield step, [{name: float(value[i]) for name, value in values.items()} for i in range(count)]

    def drop(self) -> None:
        """Forgets what is under way."""
        self._in_flight.clear()
        self.meter.reset()


def _is_ready(metrics: Mapping[str, Any]) -> bool:
    return all(value.is_ready() for value in metrics.values())
