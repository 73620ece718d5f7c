"""What is drawn, read back from the figure."""

import matplotlib.image
import numpy as np
import pytest
from matplotlib.colors import to_rgb

from resnet_jax.report.curves import axis_limits, draw_curves, plot_curves, series_names
from resnet_jax.report.panels import spread
from resnet_jax.report.style import COLOURS


def panels(figure):
    """{(row, column): axes} by where they are."""
    boxes = [(axes, axes.get_position()) for axes in figure.axes]
    tops, lefts = sorted({-round(b.y0, 6) for _, b in boxes}), sorted({round(b.x0, 6) for _, b in boxes})
    return {(tops.index(-round(b.y0, 6)), lefts.index(round(b.x0, 6))): axes for axes, b in boxes}


def test_every_panel_has_its_groups_lines_dashed_for_training_and_bold_for_test(four_runs):
    drawn = panels(draw_curves(four_runs))

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


def test_panels_of_a_row_share_axes_and_depths_have_one_colour(four_runs):
    drawn = panels(draw_curves(four_runs))

    assert [drawn[0, i].get_ylim() for i in (0, 1)] == [(0, 100)] * 2
    assert [drawn[1, i].get_ylim() for i in (0, 1)] == [(0, 20)] * 2
    assert {axes.get_xlim() for axes in drawn.values()} == {(0, 540)}
    assert [drawn[0, i].get_title(loc="left") for i in (0, 1)] == ["plain", "residual"]
    colours = [{line.get_label(): line.get_color() for line in drawn[0, i].lines[1::2]} for i in (0, 1)]
    assert colours[0] == colours[1]
    assert list(colours[0]) == ["20-layer", "56-layer"] and len(set(colours[0].values())) == 2


def test_labels_stand_apart_inside_the_figure_and_point_to_lines_off_the_axis(four_runs):
    figure = draw_curves(four_runs)
    figure.draw_without_rendering()
    for place, axes in panels(figure).items():
        boxes = [text.get_window_extent() for text in axes.texts]
        assert not boxes[0].overlaps(boxes[1])
        assert all(axes.bbox.x1 < box.x0 and box.x1 < figure.bbox.x1 for box in boxes)
        labels = {text.get_text() for text in axes.texts}
        assert labels == {"20-layer", "56-layer" + (" \N{UPWARDS ARROW}" if place == (1, 0) else "")}


def test_one_row_suffices_where_all_nets_end_on_one_scale(make_run):
    runs = [make_run(f"net-{i}", "plain", i, train_error=i, test_error=i) for i in (5, 12)]
    assert axis_limits(runs) == (20,)
    assert axis_limits([*runs, make_run("bad", "plain", 56, train_error=50.0, test_error=45.0)]) == (100, 20)
    assert axis_limits([make_run("imagenet", "plain", 34, train_error=33.0, test_error=28.5)]) == (60,)
    assert axis_limits([]) == (100,)


def test_nets_of_one_depth_go_by_their_labels_and_seeds_of_one_net_share_a_name(make_run):
    seeds = [make_run("plain-20", "plain", folder=f"seed{i}") for i in (0, 1)]
    other = make_run("ResNet-20", "residual")
    assert set(series_names([*seeds, other]).values()) == {"20-layer"}
    assert [text.get_text() for text in draw_curves(seeds).axes[0].texts] == ["20-layer"]

    twin = make_run("ResNet-20 gated", "residual")
    assert list(series_names([*seeds, other, twin]).values()) == [
        "plain-20",
        "plain-20",
        "ResNet-20",
        "ResNet-20 gated",
    ]


def test_an_unfinished_run_is_not_drawn(make_run):
    figure = draw_curves([make_run("plain-20", "plain"), make_run("ResNet-20", "residual", finished=False)])
    left, right = figure.axes

    assert len(left.lines) == 2 and len(right.lines) == 0
    assert [text.get_text() for text in right.texts] == ["no finished run"]


def test_held_out_errors_are_called_that(make_run):
    figure = draw_curves([make_run("ResNet-20", "residual", evaluated_on="held_out")])
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["training error", "held-out error"]


@pytest.mark.parametrize(
    ("positions", "expected"),
    [([1, 5], [1, 5]), ([4, 4], [3, 5]), ([0, 0, 0], [0, 2, 4]), ([1, 10, 90], [1, 8, 10]), ([], [])],
)
def test_spread(positions, expected):
    assert spread(positions, gap=2, top=10) == pytest.approx(expected)


def test_pictures_are_written_alike_twice(four_runs, tmp_path):
    for name in ("a", "b"):
        plot_curves(four_runs, tmp_path / f"{name}.png", tmp_path / f"{name}.svg", title="digits")

    assert (tmp_path / "a.svg").read_bytes() == (tmp_path / "b.svg").read_bytes()
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()
    assert b"<metadata" not in (tmp_path / "a.svg").read_bytes()  # it would hold the date
    pixels = matplotlib.image.imread(tmp_path / "a.png")
    assert pixels.shape[1] > 1500
    for colour in COLOURS[:2]:
        assert np.isclose(pixels[..., :3], to_rgb(colour), atol=0.01).all(-1).sum() > 1000


def test_labels_are_no_mathematics(make_run, tmp_path):
    runs = [make_run(label, r"$\frac$", folder=str(i)) for i, label in enumerate([r"$\a$", r"$\b$"])]
    plot_curves(runs, tmp_path / "a.png", title=r"$\c$")
