"""Times several pieces of work in turn, so that a busy machine slows all of them down alike."""

import dataclasses
import statistics
import time
from collections.abc import Callable, Mapping, Sequence


@dataclasses.dataclass(frozen=True)
class Rounds:
    """The rounds of one piece of work.

    Attributes:
      rates: units of work per second of wall time, of each round.
      cpu_seconds: seconds of this process's processor time per unit, of each round.
    """

    rates: tuple[float, ...]
    cpu_seconds: tuple[float, ...]

    @property
    def rate(self) -> float:
        """The median rate."""
        return statistics.median(self.rates)

    @property
    def spread(self) -> tuple[float, float]:
        """The lowest and the highest rate."""
        return min(self.rates), max(self.rates)

    @property
    def cpu(self) -> float:
        """The median of the processor time."""
        return statistics.median(self.cpu_seconds)


def time_in_turn(works: Mapping[str, Callable[[int], object]], seconds: float, rounds: int) -> dict[str, Rounds]:
    """Does each work for about `seconds`, one after another, `rounds` times; every other round in reverse order.

    Args:
      works: by name, functions that do so many units of work and return when they are done. Each is called twice
        before the rounds: to compile, and to see how much of it fills the time.
      seconds: of one turn.
      rounds: how many.
    """
    counts = {}
    for name, work in works.items():
        work(1)
        began = time.perf_counter()
        work(2)
        counts[name] = max(1, round(seconds / max((time.perf_counter() - began) / 2, 1e-9)))
    rates: dict[str, list[float]] = {name: [] for name in works}
    cpus: dict[str, list[float]] = {name: [] for name in works}
    for number in range(rounds):
        for name in list(works) if number % 2 == 0 else reversed(list(works)):
            began, cpu = time.perf_counter(), time.process_time()
            works[name](counts[name])
            rates[name].append(counts[name] / (time.perf_counter() - began))
            cpus[name].append((time.process_time() - cpu) / counts[name])
    return {name: Rounds(tuple(rates[name]), tuple(cpus[name])) for name in works}


def ratio(ours: Sequence[float], theirs: Sequence[float]) -> float:
    """Returns the median over the rounds of our rate divided by theirs, which a slow round does not change."""
    return statistics.median(a / b for a, b in zip(ours, theirs, strict=True))
