"""Steps on their way through the devices: the host prepares the next dispatch while one is computed."""

import collections
import dataclasses
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import jax

from resnet_jax.training.mesh import batch_sharded
from resnet_jax.training.state import TrainState
from resnet_jax.training.step import Metrics, TrainStep, make_packed_step
from resnet_jax.training.trainer import Trainer


@dataclasses.dataclass
class Clock:
    """Seconds that went into the steps of a program's runs: in all, waiting for input, and compiling, kept apart."""

    seconds: float = 0.0
    wait: float = 0.0
    compile: float = 0.0


class Meter:
    """A run's steps since it was last read, and what they cost by the clock that runs on the same devices share."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self.reset()

    def reset(self) -> None:
        self.steps, self._since = 0, dataclasses.replace(self._clock)

    def values(self, batch_size: int) -> dict[str, float]:
        """images_per_second, step_seconds; data_wait: percent of the time in which the devices had nothing to do
        while the host prepared a batch; compile_seconds."""
        seconds = self._clock.seconds - self._since.seconds
        return {
            "images_per_second": round(self.steps * batch_size / seconds, 1),
            "step_seconds": round(seconds / self.steps, 6),
            "data_wait": round(100 * (self._clock.wait - self._since.wait) / seconds, 2),
            "compile_seconds": round(self._clock.compile - self._since.compile, 2),
        }


@dataclasses.dataclass(eq=False)
class Dispatch:
    """Steps of one run that are ready to be computed, and then what came of them.

    Nothing else holds on to the arrays: a state takes as much memory as the net and its optimiser.

    Attributes:
      state: before the steps, and the one after them once they are dispatched.
      inputs: on the devices, for all of the steps; None once they are dispatched.
      step: of the first.
      metrics: of each step, (count,), once they are dispatched.
    """

    state: Any
    inputs: Any
    step: int
    metrics: Metrics | None = None

    @property
    def shapes(self) -> tuple[tuple[int, ...], ...]:
        """Of the inputs: dispatches that share them share a program."""
        return tuple(x.shape for x in jax.tree.leaves(self.inputs))

    def take(self) -> tuple[TrainState, Metrics]:
        """Hands over the state after the steps and their metrics, which need not be computed yet."""
        state, metrics = self.state, self.metrics
        assert metrics is not None, "they are not dispatched"
        self.state = self.metrics = None
        return state, metrics


class Programs:
    """The compiled training steps of one net: for one run, or for several that differ in their seed alone.

    Attributes:
      clock: what they cost.
      compiled: the programs, by the number of runs and the inputs' shapes.
    """

    def __init__(
        self, trainer: Trainer, on_compile: Callable[[], None] = lambda: None, packing: str | None = None
    ) -> None:
        """`on_compile` is called ahead of a compilation, which can take minutes; `packing`: see `make_packed_step`."""
        self._trainer, self._on_compile, self._packing = trainer, on_compile, packing
        self.clock = Clock()
        self.compiled: dict[tuple[int, Any], Any] = {}

    def run(self, dispatches: Sequence[Dispatch]) -> None:
        """Computes dispatches of like shapes, one of each run, in one program, without waiting for it."""
        began = time.monotonic()
        resident, alone = self._trainer.pipeline.train, len(dispatches) == 1
        arguments: Any = (dispatches[0].state, resident, dispatches[0].inputs)
        if not alone:
            arguments = (tuple(d.state for d in dispatches), resident, tuple(d.inputs for d in dispatches))
        key = len(dispatches), dispatches[0].shapes
        if key not in self.compiled:
            self._on_compile()
            program = self._trainer.train_step if alone else self._packed_step()
            self.compiled[key] = program.lower(*arguments).compile()
            compiled = time.monotonic()
            self.clock.compile += compiled - began
            began = compiled
        with jax.profiler.StepTraceAnnotation("train", step_num=dispatches[0].step):
            states, metrics = self.compiled[key](*arguments)
        self.clock.seconds += time.monotonic() - began
        for dispatch, state, metric in zip(
            dispatches, [states] if alone else states, [metrics] if alone else metrics, strict=True
        ):
            dispatch.state, dispatch.inputs, dispatch.metrics = state, None, metric

    def _packed_step(self) -> TrainStep:
        trainer = self._trainer
        return make_packed_step(trainer.model, trainer.config, trainer.pipeline, trainer.mesh, self._packing)


class Stepper:
    """Prepares a run's training steps, and hands their metrics back in order.

    Attributes:
      meter: what they cost.
      programs: what computes them.
    """

    def __init__(self, trainer: Trainer, programs: Programs | None = None) -> None:
        """`programs` are those that the run shares with others."""
        self._trainer = trainer
        self.programs = programs or Programs(trainer)
        self._in_flight: collections.deque[tuple[int, int, Metrics]] = collections.deque()
        self._sharding = batch_sharded(trainer.mesh, axis=1)
        self.meter = Meter(self.programs.clock)

    def prepare(self, state: TrainState, step: int, count: int, skipped: Sequence[int] = ()) -> Dispatch:
        """Sends the inputs of `count` steps from `step` on.

        Args:
          state: after `step` steps.
          step, count: see there.
          skipped: numbers of the batches to leave out.
        """
        began = time.monotonic()
        inputs = self._trainer.pipeline.train_inputs(step, count, skipped)
        dispatch = Dispatch(state, self._trainer.pipeline.send(inputs, self._sharding), step)
        seconds, clock = time.monotonic() - began, self.programs.clock
        # An upper bound: they may have run out of work at any moment of it.
        if not self._in_flight or _is_ready(self._in_flight[-1][2]):
            clock.wait += seconds
        clock.seconds += seconds
        return dispatch

    def dispatched(self, step: int, count: int, metrics: Metrics) -> None:
        """Notes that the devices are at `count` steps from `step` on; `metrics` are what will come of them."""
        self._in_flight.append((step, count, metrics))

    def advance(self, state: TrainState, step: int, count: int, skipped: Sequence[int] = ()) -> TrainState:
        """Prepares and dispatches the steps of this run alone: the state after them."""
        dispatch = self.prepare(state, step, count, skipped)
        self.programs.run([dispatch])
        state, metrics = dispatch.take()
        self.dispatched(step, count, metrics)
        return state

    def collect(self, leave: int = 0) -> Iterator[tuple[int, list[dict[str, float]]]]:
        """Waits for all dispatches but the newest `leave`: (steps done before it, metrics of its steps), in order."""
        while len(self._in_flight) > leave:
            step, count, metrics = self._in_flight.popleft()
            began = time.monotonic()
            values = jax.device_get(metrics)
            self.programs.clock.seconds += time.monotonic() - began
            self.meter.steps += count
            yield step, [{name: float(value[i]) for name, value in values.items()} for i in range(count)]

    def drop(self) -> None:
        """Forgets what is under way."""
        self._in_flight.clear()
        self.meter.reset()


def _is_ready(metrics: Mapping[str, Any]) -> bool:
    return all(value.is_ready() for value in metrics.values())
