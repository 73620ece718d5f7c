"""Statistics against NumPy, SciPy and sums by hand."""

import itertools
import statistics

import numpy as np
import pytest
from scipy import stats

from resnet_jax.report.run_statistics import difference, spread

FIVE = (6.43, 6.55, 6.70, 6.52, 6.85)
OTHER = (6.97, 7.10, 6.90)


def test_spread_of_five_runs():
    found = spread(FIVE)
    assert (found.n, found.best) == (5, 6.43)
    assert found.mean == pytest.approx(6.61) == pytest.approx(np.mean(FIVE))
    assert found.median == 6.55
    # Squares of the distances from 6.61 sum up to 0.1098 (by hand); sample deviation: through 4.
    assert found.std == pytest.approx((0.1098 / 4) ** 0.5) == pytest.approx(statistics.stdev(FIVE))
    assert found.std == pytest.approx(stats.tstd(FIVE))
    assert spread(FIVE, lower_is_better=False).best == 6.85, "of average precision more is better"


def test_spread_of_one_run_and_of_none():
    assert spread([]) is None
    one = spread([7.0])
    assert (one.mean, one.median, one.best, one.std) == (7, 7, 7, None)
    assert one.holds(7.0) is None


def test_whether_a_number_lies_within():
    found = spread([1.0, 2.0, 3.0])  # mean 2, deviation 1
    assert found.holds(4.0) and found.holds(0.0)
    assert not found.holds(4.01) and not found.holds(-0.01)


def test_difference_of_two_groups():
    found = difference(spread(FIVE), spread(OTHER))
    assert found.mean == pytest.approx(np.mean(FIVE) - np.mean(OTHER))
    assert found.low < found.mean < found.high < 0
    expected = stats.bootstrap(
        (FIVE, OTHER),
        lambda a, b: np.mean(a) - np.mean(b),
        method="percentile",
        vectorized=False,
        n_resamples=3000,
        rng=1,
    ).confidence_interval
    assert (found.low, found.high) == pytest.approx(tuple(expected), abs=0.02)
    assert difference(spread(FIVE), spread(OTHER)) == found  # the draws are the same every time


def test_interval_of_all_resamples_of_two_pairs():
    """Two runs each: 16 equally likely resamples, whose 2.5 % and 97.5 % points are the extremes (each 1/16)."""
    a, b = (1.0, 2.0), (4.0, 6.0)
    draws = [np.mean(x) - np.mean(y) for x in itertools.product(a, a) for y in itertools.product(b, b)]
    found = difference(spread(a), spread(b))
    assert (found.low, found.high) == (min(draws), max(draws)) == (-5, -2)


def test_single_runs_have_a_difference_without_an_interval():
    found = difference(spread([5.0]), spread(OTHER))
    assert found.mean == pytest.approx(5 - np.mean(OTHER)) and found.low is None and found.high is None


def test_runs_that_agree_to_the_last_digit():
    found = difference(spread([5.0, 5.0]), spread([4.0, 4.0]))
    assert (found.mean, found.low, found.high) == (1, 1, 1)
