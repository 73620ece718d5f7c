"""What is drawn, read back from the figure."""

import dataclasses

import matplotlib.image
import numpy as np
import pytest
from matplotlib.colors import to_rgb

from resnet_jax.report.curve_axes import keep_apart
from resnet_jax.report.curves import draw_curves, draw_loss_and_error
from resnet_jax.report.series import Curve, Series, make_series
from resnet_jax.report.style import COLOURS, save

GROUPS = ["plain", "residual"]


@pytest.fixture
def ablation(four_runs):
    """The four runs as lines of one seed each, called by their depth."""
    return [make_series(f"{run.result.depth}-layer", run.group, [run]) for run in four_runs]


def panels(figure):
    """{(row, column): axes} by where they are."""
    boxes = [(axes, axes.get_position()) for axes in figure.axes]
    tops, lefts = sorted({-round(b.y0, 6) for _, b in boxes}), sorted({round(b.x0, 6) for _, b in boxes})
    return {(tops.index(-round(b.y0, 6)), lefts.index(round(b.x0, 6))): axes for axes, b in boxes}


def test_every_panel_has_its_groups_lines_dashed_for_training_and_bold_for_test(ablation, four_runs):
    drawn = panels(draw_curves(ablation, GROUPS, "curves"))

    assert set(drawn) == {(0, 0), (0, 1), (1, 0), (1, 1)}
    for (_, column), axes in drawn.items():
        for i, run in enumerate(four_runs[2 * column : 2 * column + 2]):
            train, test = axes.lines[2 * i : 2 * i + 2]
            np.testing.assert_array_equal(train.get_xydata(), np.stack([run.train_steps, run.train_errors], 1))
            np.testing.assert_array_equal(test.get_xydata(), np.stack([run.test_steps, run.test_errors], 1))
            assert (train.get_linestyle(), test.get_linestyle()) == ("--", "-")
            assert test.get_linewidth() > train.get_linewidth()
            assert train.get_color() == test.get_color()
        assert len(axes.lines) == 4


def test_panels_of_a_row_share_axes_and_depths_have_one_colour(ablation):
    drawn = panels(draw_curves(ablation, GROUPS, "curves"))

    assert [drawn[0, i].get_ylim() for i in (0, 1)] == [(0, 100)] * 2
    assert [drawn[1, i].get_ylim() for i in (0, 1)] == [(0, 20)] * 2
    assert {axes.get_xlim() for axes in drawn.values()} == {(0, 540)}
    assert [drawn[0, i].get_title(loc="left") for i in (0, 1)] == ["plain", "residual"]
    colours = [{text.get_text()[:8]: text.get_color() for text in drawn[0, i].texts} for i in (0, 1)]
    assert colours[0] == colours[1]
    assert len(set(colours[0].values())) == 2


def test_labels_stand_apart_inside_the_figure_and_point_to_lines_off_the_axis(ablation):
    figure = draw_curves(ablation, GROUPS, "curves")
    figure.draw_without_rendering()
    for place, axes in panels(figure).items():
        boxes = [text.get_window_extent() for text in axes.texts]
        assert not boxes[0].overlaps(boxes[1])
        assert all(axes.bbox.x1 < box.x0 and box.x1 < figure.bbox.x1 for box in boxes)
        labels = {text.get_text() for text in axes.texts}
        assert labels == {"20-layer", "56-layer" + (" \N{UPWARDS ARROW}" if place == (1, 0) else "")}


def test_held_out_errors_are_called_that(series):
    figure = draw_curves(series, GROUPS, "curves", evaluated="held-out")
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["training error", "held-out error"]


@pytest.mark.parametrize(
    ("positions", "expected"),
    [([1, 5], [1, 5]), ([4, 4], [3, 5]), ([0, 0, 0], [0, 2, 4]), ([1, 10, 90], [1, 8, 10]), ([], [])],
)
def test_labels_keep_apart(positions, expected):
    assert keep_apart(positions, gap=2, top=10) == pytest.approx(expected)


def test_pictures_are_written_alike_twice(ablation, tmp_path):
    for name in ("a", "b"):
        figure = draw_curves(ablation, GROUPS, "curves", "digits")
        save(figure, tmp_path / f"{name}.png", tmp_path / f"{name}.svg")

    assert (tmp_path / "a.svg").read_bytes() == (tmp_path / "b.svg").read_bytes()
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()
    assert b"<metadata" not in (tmp_path / "a.svg").read_bytes()  # it would hold the date
    pixels = matplotlib.image.imread(tmp_path / "a.png")
    assert pixels.shape[1] > 1500
    for colour in COLOURS[:2]:
        assert np.isclose(pixels[..., :3], to_rgb(colour), atol=0.01).all(-1).sum() > 1000


def test_labels_are_no_mathematics(make_run, tmp_path):
    lines = [
        make_series(label, r"$\frac$", [make_run(label, "", folder=str(i))])
        for i, label in enumerate([r"$\a$", r"$\b$"])
    ]
    save(draw_curves(lines, [r"$\frac$"], "curves", r"$\c$"), tmp_path / "a.png")


def test_figure_6_has_dashed_and_bold_lines_and_a_band_where_there_are_several_runs(series):
    plain, residual = draw_curves(series, ["plain", "residual"], "curves", "T").axes
    assert [line.get_linestyle() for line in plain.lines] == ["--", "-", "--", "-"]
    assert len(plain.collections) == 1  # of plain-20's test error; all else is alike or one run
    assert {text.get_text() for text in plain.texts} == {"plain-20", "plain-56"}
    assert [text.get_text() for text in residual.texts] == ["ResNet-20"]
    np.testing.assert_allclose(plain.lines[1].get_ydata()[-1], 8.5)


def test_figure_4_is_thin_and_bold(series):
    plain, _ = draw_curves(series, ["plain", "residual"], "thin_curves").axes
    thin, bold = plain.lines[:2]
    assert thin.get_linestyle() == bold.get_linestyle() == "-" and thin.get_linewidth() < bold.get_linewidth() / 2


def test_figure_1_has_a_panel_of_training_and_one_of_test_errors(series):
    training, test = draw_curves(series[:2], [""], "train_test", evaluated="held-out").axes
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


@pytest.mark.parametrize(
    ("ends", "limit"), [((8.5, 12.0), 20), ((8.5, 35.0), 60), ((8.5, 19.0), 60), ((8.5, 90.0), 100)]
)
def test_every_line_of_loss_and_error_ends_inside_its_axis(ends, limit):
    lines = [Curve(np.array([100, 200]), np.array([90.0, end]), np.zeros(2)) for end in ends]
    nets = [Series(f"net {k}", f"panel {k % 2}", 20 + k, line, line, line) for k, line in enumerate(lines)]
    errors = draw_loss_and_error(nets, ["panel 0", "panel 1"]).axes[2:]
    assert [axes.get_ylim() for axes in errors] == [(0, limit)] * 2
    assert [axes.lines[0].get_ydata()[-1] for axes in errors] == list(ends)


def test_empty_panels_say_so():
    found = draw_loss_and_error([], ["a"]).axes[0]
    assert found.texts[0].get_text() == "no finished run"

    assert [axes.texts[0].get_text() for axes in draw_curves([], ["a", "b"], "curves").axes] == ["no finished run"] * 2


def test_seeds_that_share_no_step_are_drawn_without_a_line(make_run):
    one, other = make_run("a", "plain"), make_run("b", "plain")
    shifted = dataclasses.replace(other, train_steps=other.train_steps + 1, test_steps=other.test_steps + 1)
    apart = [make_series("plain-20", "plain", [one, shifted])]
    assert draw_loss_and_error(apart, ["plain"]).axes[0].lines[0].get_xdata().size == 0
    assert draw_curves(apart, ["plain"], "curves").axes[0].lines[0].get_xdata().size == 0


@pytest.mark.parametrize("draw", [lambda *a: draw_curves(*a[:2], "curves", a[2]), draw_loss_and_error])
def test_a_long_title_is_not_cut(ablation, draw):
    """As of a paper's figure with one group, a tenth of the schedule and a part held out."""
    title = "Plain and residual nets, made deeper: CIFAR-10, 10 % of the schedule (held out)"
    figure = draw([one for one in ablation if one.group == "plain"], ["plain"], title)
    figure.draw_without_rendering()
    (text,) = [one for one in figure.texts if one.get_text() == title]
    extent = text.get_window_extent()
    assert figure.bbox.x0 <= extent.x0 and extent.x1 <= figure.bbox.x1
    assert extent.y0 > max(axes.get_tightbbox().y1 for axes in figure.axes)


@pytest.mark.parametrize("steps", [1, 6, 540])
def test_a_run_that_was_evaluated_once_is_a_point_and_ticks_are_whole_steps(steps):
    once = Curve(np.array([steps]), np.array([12.5]), np.zeros(1))
    series = Series("net", "nets", 20, once, once, once)
    for figure in (draw_curves([series], ["nets"], "curves"), draw_loss_and_error([series], ["nets"])):
        lines = [line for panel in figure.axes for line in panel.lines if len(line.get_xdata()) == 1]
        assert len(lines) >= 2 and all(line.get_marker() == "o" for line in lines)
        figure.canvas.draw()
        for panel in figure.axes:
            assert all(float(tick).is_integer() for tick in panel.get_xticks() if 0 <= tick <= steps)
