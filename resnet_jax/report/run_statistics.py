"""Statistics of several runs of one config: spread, and the difference of two groups."""

import dataclasses
from collections.abc import Sequence

import numpy as np
from scipy import stats

#: A single number lies within a spread if it is no further than this many standard deviations from the mean.
WITHIN = 2.0


@dataclasses.dataclass(frozen=True)
class Spread:
    """Errors, or other numbers, of runs that differ in nothing but their seed.

    Attributes:
      values: in the runs' order.
      best: the lowest, or the highest where more is better.
      mean, median: of all.
      std: sample standard deviation (n - 1), None for a single run.
    """

    values: tuple[float, ...]
    best: float
    mean: float
    median: float
    std: float | None

    @property
    def n(self) -> int:
        return len(self.values)

    def holds(self, number: float) -> bool | None:
        """Returns whether a number lies within `WITHIN` standard deviations of the mean; None without a deviation."""
        return None if self.std is None else abs(number - self.mean) <= WITHIN * self.std


@dataclasses.dataclass(frozen=True)
class Difference:
    """Mean of one group minus the mean of another.

    Attributes:
      mean: the difference.
      low, high: ends of the bootstrap interval; None where a group has a single run.
    """

    mean: float
    low: float | None
    high: float | None


def spread(values: Sequence[float], lower_is_better: bool = True) -> Spread | None:
    """Returns the spread of some numbers, None if there are none."""
    if not values:
        return None
    std = float(np.std(values, ddof=1)) if len(values) > 1 else None
    best = min(values) if lower_is_better else max(values)
    return Spread(tuple(values), best, float(np.mean(values)), float(np.median(values)), std)


def difference(one: Spread, other: Spread, confidence: float = 0.95, resamples: int = 9999) -> Difference:
    """Returns mean of `one` minus mean of `other`, with the interval of a bootstrap over runs.

    Runs of both groups are drawn with replacement; the interval holds the middle `confidence` of the differences.
    With five runs it is somewhat too narrow. The draws are the same every time.
    """
    mean = one.mean - other.mean
    if one.n < 2 or other.n < 2:
        return Difference(mean, None, None)
    found = stats.bootstrap(
        (one.values, other.values),
        lambda a, b, axis: np.mean(a, axis=axis) - np.mean(b, axis=axis),
        n_resamples=resamples,
        confidence_level=confidence,
        method="percentile",
        vectorized=True,
        rng=np.random.default_rng(0),
    )
    return Difference(mean, float(found.confidence_interval.low), float(found.confidence_interval.high))
