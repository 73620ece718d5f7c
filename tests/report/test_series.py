"""Means over seeds, and the panels that show them."""

import numpy as np
import pytest

from resnet_jax.report.series import Curve, average, axis_limits, colour_indices, make_series


def test_average_over_the_steps_that_all_have():
    one = (np.array([1, 2, 3]), np.array([4.0, 2.0, 1.0]))
    other = (np.array([2, 3, 4]), np.array([4.0, 1.0, 0.5]))
    curve = average([one, other])
    assert curve.steps.tolist() == [2, 3] and curve.mean.tolist() == [3, 1]
    assert curve.std == pytest.approx([np.std([2, 4], ddof=1), 0])
    assert average([one]).std.tolist() == [0, 0, 0]


def test_series_are_of_finished_runs(make_run):
    assert make_series("a", "b", [make_run("x", "b", finished=False)]) is None
    found = make_series("a", "b", [make_run("y", "b", finished=False), make_run("z", "b")])
    assert found.depth == 20 and found.test.mean[-1] == pytest.approx(4.44, abs=0.01)


def test_thinned_curves_keep_their_ends():
    curve = Curve(np.arange(10_000), np.arange(10_000) / 10, np.zeros(10_000)).thinned(100)
    assert len(curve.steps) == 100 and (curve.steps[0], curve.steps[-1]) == (0, 9999)
    assert np.ptp(np.diff(curve.steps)) <= 1, "evenly spaced"
    np.testing.assert_array_equal(curve.mean, curve.steps / 10)  # the values of these steps


def test_twins_share_a_colour_where_depth_tells_nets_apart(series, make_run):
    assert colour_indices(series) == [0, 1, 0]
    again = make_series("other", "plain", [make_run("u", "plain", 20)])
    assert colour_indices([*series, again]) == [0, 1, 2, 3]


def test_one_row_suffices_where_all_nets_end_on_one_scale(make_run):
    def net(label, end):
        return make_series(label, "plain", [make_run(label, "plain", train_error=end, test_error=end)])

    nets = [net("five", 5.0), net("twelve", 12.0)]
    assert axis_limits(nets) == (20,)
    assert axis_limits([*nets, net("bad", 50.0)]) == (100, 20)
    assert axis_limits([net("imagenet", 33.0)]) == (60,)
    assert axis_limits([]) == (100,)
