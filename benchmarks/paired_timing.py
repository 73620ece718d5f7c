"""Contestants that take turns: rounds of a few seconds each, and what they come to."""

import dataclasses
import statistics
import time
from collections.abc import Callable, Mapping, Sequence


@dataclasses.dataclass(frozen=True)
class Rounds:
    """One contestant's rounds.

    Attributes:
      rates: units of work a second of wall time, of each round.
      cpu_seconds: seconds of processor time of this process for each unit, of each round.
    """

    rates: tuple[float, ...]
    cpu_seconds: tuple[float, ...]

    @property
    def rate(self) -> float:
        """The median."""
        return statistics.median(self.rates)

    @property
    def spread(self) -> tuple[float, float]:
        """Least and most."""
        return min(self.rates), max(self.rates)

    @property
    def cpu(self) -> float:
        """The median."""
        return statistics.median(self.cpu_seconds)


def contest(works: Mapping[str, Callable[[int], object]], seconds: float, rounds: int) -> dict[str, Rounds]:
    """Lets each do its work for about `seconds`, in turn, `rounds` times; every other round backwards.

    Args:
      works: by name, what takes so many units of work and returns when they are done. It is called twice ahead of the
        rounds: to compile, and to see how much of it fills the time.
      seconds: of one turn.
      rounds: see there.
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
    """Median over the rounds of ours by theirs: what slows a whole round down falls out."""
    return statistics.median(a / b for a, b in zip(ours, theirs, strict=True))
