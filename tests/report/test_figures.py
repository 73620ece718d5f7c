"""Means over seeds, and the figures and charts drawn from them."""

import json

import numpy as np
import pytest

from resnet_jax.errors import UserError
from resnet_jax.report.analysis.draw_responses import draw_responses, mean_responses
from resnet_jax.report.charts import POINTS, make_chart
from resnet_jax.report.figures import draw_loss_and_error, draw_series
from resnet_jax.report.series import Curve, average, colour_indices, make_series


@pytest.fixture
def series(make_run):
    """plain-20 and ResNet-20 with two seeds, plain-56 with one."""
    return [
        make_series("plain-20", "plain", [make_run("p", "plain", 20, test_error=9.0),
                                          make_run("q", "plain", 20, test_error=8.0)]),
        make_series("plain-56", "plain", [make_run("r", "plain", 56, train_error=7.0, test_error=12.0)]),
        make_series("ResNet-20", "residual", [make_run("s", "residual", 20), make_run("t", "residual", 20)]),
    ]  # fmt: skip


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
    assert (found.runs, found.depth) == (1, 20)


def test_thinned_curves_keep_their_ends():
    curve = Curve(np.arange(10_000), np.arange(10_000) / 10, np.zeros(10_000)).thinned(100)
    assert len(curve.steps) == 100 and (curve.steps[0], curve.steps[-1]) == (0, 9999)


def test_twins_share_a_colour_where_depth_tells_nets_apart(series, make_run):
    assert colour_indices(series) == [0, 1, 0]
    again = make_series("other", "plain", [make_run("u", "plain", 20)])
    assert colour_indices([*series, again]) == [0, 1, 2, 3]


def test_figure_6_has_dashed_and_bold_lines_and_a_band_where_there_are_several_runs(series):
    plain, residual = draw_series(series, ["plain", "residual"], "curves", "T").axes
    assert [line.get_linestyle() for line in plain.lines] == ["--", "-", "--", "-"]
    assert len(plain.collections) == 1  # of plain-20's test error; all else is alike or one run
    assert {text.get_text() for text in plain.texts} == {"plain-20", "plain-56"}
    assert [text.get_text() for text in residual.texts] == ["ResNet-20"]
    np.testing.assert_allclose(plain.lines[1].get_ydata()[-1], 8.5)


def test_figure_4_is_thin_and_bold(series):
    plain, _ = draw_series(series, ["plain", "residual"], "thin_curves").axes
    thin, bold = plain.lines[:2]
    assert thin.get_linestyle() == bold.get_linestyle() == "-" and thin.get_linewidth() < bold.get_linewidth() / 2


def test_figure_1_has_a_panel_of_training_and_one_of_test_errors(series):
    training, test = draw_series(series[:2], [""], "train_test", evaluated="held-out").axes
    assert training.get_title(loc="left") == "training error" and test.get_title(loc="left") == "held-out error"
    assert training.lines[1].get_ydata()[-1] == 7 and test.lines[1].get_ydata()[-1] == 12


def test_figures_of_the_2016_paper_have_dashed_loss_on_a_logarithmic_axis_and_bold_error(series):
    loss, other, error, _ = draw_loss_and_error(series, ["plain", "residual"]).axes
    assert (loss.get_title(loc="left"), other.get_title(loc="left")) == ("plain", "residual")
    assert loss.get_yscale() == "log" and error.get_yscale() == "linear" and error.get_ylim() == (0, 20)
    assert [line.get_linestyle() for line in loss.lines] == ["--", "--"]
    assert [line.get_linestyle() for line in error.lines] == ["-", "-"]
    assert [line.get_label() for line in error.lines] == ["plain-20", "plain-56"]
    np.testing.assert_allclose(loss.lines[0].get_ydata(), 1.0)  # what the records of the fixture say
    np.testing.assert_allclose([line.get_ydata()[-1] for line in error.lines], [8.5, 12.0])
    assert error.yaxis.get_label_position() == "right"


def test_empty_panels_say_so():
    found = draw_loss_and_error([], ["a"]).axes[0]
    assert found.texts[0].get_text() == "no finished run"

    assert [axes.texts[0].get_text() for axes in draw_series([], ["a", "b"], "curves").axes] == ["no finished run"] * 2


def test_charts_hold_the_same_lines(series):
    chart = make_chart(series, ["plain", "residual"], "curves", "caption", "held-out")
    assert json.loads(json.dumps(chart)) == chart
    assert [panel["title"] for panel in chart["panels"]] == ["plain", "residual"]
    train, test = chart["panels"][0]["lines"][:2]
    assert (train["kind"], train["style"], test["kind"], test["style"]) == ("train", "dashed", "held-out", "bold")
    assert test["mean"][-1] == 8.5 and test["std"][-1] == pytest.approx(0.707) and len(test["steps"]) <= POINTS
    assert [p["title"] for p in make_chart(series, [""], "train_test", "")["panels"]] == [
        "training error",
        "test error",
    ]


def test_responses_in_order_and_ranked(tmp_path):
    for run, values in (("a", [1.0, 3.0, 2.0]), ("b", [3.0, 5.0, 4.0])):
        (tmp_path / run).mkdir()
        layers = [{"layer": f"conv{i}", "std": value} for i, value in enumerate(values)]
        (tmp_path / run / "responses.json").write_text(json.dumps(layers))
    mean = mean_responses([tmp_path / "a", tmp_path / "b", tmp_path / "none"])
    assert mean.tolist() == [2, 4, 3]
    original, ranked = draw_responses({"plain-20": mean, "ResNet-20": mean}).axes
    assert original.lines[0].get_ydata().tolist() == [2, 4, 3] and ranked.lines[0].get_ydata().tolist() == [4, 3, 2]
    assert [line.get_linestyle() for line in original.lines] == ["--", "-"]
    assert draw_responses({}).axes[0].texts[0].get_text() == "no measured run"


@pytest.mark.parametrize("text", ["{", '{"a": 1}', '[{"layer": "x"}]', "[1]"])
def test_damaged_responses(tmp_path, text):
    (tmp_path / "responses.json").write_text(text)
    with pytest.raises(UserError, match=r"cannot read .*responses.json"):
        mean_responses([tmp_path])
