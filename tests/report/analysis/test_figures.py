"""What the figures of analyses show, read back from them, and the files."""

import json

import matplotlib.image
import numpy as np
import pytest

from resnet_jax.errors import UserError
from resnet_jax.report.analysis import draw_cost, draw_gradients, draw_lesion, draw_responses, draw_surface
from resnet_jax.report.analysis.figures import FIGURES, draw_analysis, plot_analysis
from resnet_jax.report.analysis.nets import Net, load_nets
from resnet_jax.report.style import COLOURS
from resnet_jax.training.run_folder import RunFolder

RESPONSES = [{"layer": f"stage1/block{i}/bn1", "std": std} for i, std in enumerate((0.5, 2.0, 1.0))]
GRADIENTS = {
    "steps": [0, 5400],
    "layers": ["stem/conv", "stage1/block1/conv1", "head"],
    "kernels": [[1.0, 2.0, 3.0], [0.1, 0.0, 0.3]],
    "outputs": [[4.0, 5.0, 6.0], [0.4, 0.5, 0.6]],
}
SURFACE = {
    "settings": {},
    "x": [-1.0, 0.0, 1.0],
    "y": [-1.0, 0.0, 1.0],
    "loss": [[5.0, 2.0, 4.0], [3.0, 0.01, None], [1e6, 1.0, 2.0]],
    "error": [[90.0, 80.0, 90.0], [50.0, 1.0, 90.0], [90.0, 60.0, 70.0]],
}
LESION = {
    "settings": {},
    "error": 5.0,
    "single": [
        {"block": "stage1/block1", "changes_shape": False, "error": 30.0},
        {"block": "stage2/block1", "changes_shape": True, "error": None},
        {"block": "stage2/block2", "changes_shape": False, "error": 6.0},
    ],
    "removed": [{"count": 1, "errors": [10.0, 20.0]}, {"count": 2, "errors": [40.0, 60.0]}],
    "exchanged": [{"count": 1, "errors": [8.0, 10.0], "kendall_tau": [0.9, 0.8]}],
}
FOUND = {"responses": RESPONSES, "gradients": GRADIENTS, "surface": SURFACE, "lesion": LESION}


def nets(found):
    return [Net("plain-56", True, COLOURS[0], found), Net("ResNet-56", False, COLOURS[1], found)]


def labelled(panel, label):
    return next(line for line in panel.lines if line.get_label() == label)


def test_responses_are_drawn_in_order_and_ranked():
    above, below = draw_responses.draw(nets(RESPONSES)).axes
    np.testing.assert_array_equal(labelled(above, "plain-56").get_ydata(), [0.5, 2.0, 1.0])
    np.testing.assert_array_equal(labelled(below, "plain-56").get_ydata(), [2.0, 1.0, 0.5])
    assert labelled(above, "plain-56").is_dashed() and not labelled(above, "ResNet-56").is_dashed()
    assert [text.get_text() for text in above.get_legend().get_texts()] == ["plain-56", "ResNet-56"]


def test_responses_are_averaged_over_the_runs_of_a_net(tmp_path, tiny_config):
    for folder, stds in (("a", [1.0, 3.0, 2.0]), ("b", [3.0, 5.0, 4.0])):
        RunFolder(tmp_path / folder).open(tiny_config())
        layers = [{"layer": f"conv{i}", "std": std} for i, std in enumerate(stds)]
        (tmp_path / folder / "responses.json").write_text(json.dumps(layers))
    figure = draw_analysis("responses", [[tmp_path / "a", tmp_path / "b"]], "Figure 7")
    assert figure.axes[0].lines[0].get_ydata().tolist() == [2, 4, 3] and figure.get_suptitle() == "Figure 7"
    (tmp_path / "b/responses.json").write_text(json.dumps(RESPONSES))
    with pytest.raises(UserError, match="not of the same layers"):
        draw_analysis("responses", [[tmp_path / "a", tmp_path / "b"]])


@pytest.mark.parametrize("text", ["{", '{"a": 1}', '[{"layer": "x"}]', "[1]"])
def test_damaged_responses(tmp_path, tiny_config, text):
    RunFolder(tmp_path).open(tiny_config())
    (tmp_path / "responses.json").write_text(text)
    with pytest.raises(UserError, match=r"cannot (read|draw).*responses.json"):
        draw_analysis("responses", [[tmp_path]])


def test_a_figure_without_runs_says_so():
    assert draw_analysis("lesion", [], "Figure 3").axes[0].texts[0].get_text() == "no measured run"


def test_settings_that_differ_between_nets_stand_in_the_title(tmp_path, tiny_config):
    folders = [tmp_path / "a", tmp_path / "b"]
    for folder, images in zip(folders, (200, 0), strict=True):
        RunFolder(folder).open(tiny_config())
        settings = {"step": 6 + images, "images": images, "seed": 0}
        (folder / "lesion.json").write_text(json.dumps(LESION | {"settings": settings}))
    title = draw_analysis("lesion", [[folder] for folder in folders], "Figure 3").get_suptitle()
    assert title == "Figure 3\nResNet-20 (a): images=200\nResNet-20 (b): images=0"
    assert draw_analysis("lesion", [[folders[0]]], "Figure 3").get_suptitle() == "Figure 3"
    for folder, found in zip(
        folders, (RESPONSES, {"settings": {"split": "test"}, "responses": RESPONSES}), strict=True
    ):
        (folder / "responses.json").write_text(json.dumps(found))
    figure = draw_analysis("responses", [folders, [folders[1]]], "Figure 7")
    assert figure.get_suptitle() == "Figure 7" and figure.axes[0].lines[0].get_ydata().tolist() == [0.5, 2.0, 1.0]


def test_gradients_have_a_panel_for_each_net_and_kind():
    figure = draw_gradients.draw(nets(GRADIENTS))
    panels = np.reshape(figure.axes, (2, 2))
    assert [panel.get_title("left") for panel in panels[0]] == ["plain-56", "ResNet-56"]
    np.testing.assert_array_equal(labelled(panels[0, 0], "5,400").get_ydata(), [0.1, np.nan, 0.3])
    np.testing.assert_array_equal(labelled(panels[1, 1], "0").get_ydata(), [4.0, 5.0, 6.0])
    assert panels[0, 0].get_yscale() == "log" and panels[0, 0].get_ylim() == panels[0, 1].get_ylim()


def test_surfaces_share_their_levels_and_lie_above_the_line_through_the_centre():
    figure = draw_surface.draw(nets(SURFACE))
    plane, other, loss, error, bar = sorted(figure.axes, key=lambda panel: panel.get_label() == "<colorbar>")
    assert plane.get_title("left") == "plain-56" and other.get_title("left") == "ResNet-56"
    np.testing.assert_array_equal(labelled(loss, "plain-56").get_ydata(), [3.0, 0.01, np.nan])
    np.testing.assert_array_equal(labelled(error, "ResNet-56").get_ydata(), [50.0, 1.0, 90.0])
    assert bar.get_ylim() == pytest.approx((0.01, 100))
    assert "100+" in [text.get_text() for text in bar.get_yticklabels()]


def test_lines_alone_have_no_plane():
    line = SURFACE | {"y": [0.0], "loss": SURFACE["loss"][1:2], "error": SURFACE["error"][1:2]}
    assert len(draw_surface.draw(nets(line)).axes) == 2


def test_a_surface_that_is_not_finished():
    part = SURFACE | {"loss": SURFACE["loss"][:1], "error": SURFACE["error"][:1]}
    with pytest.raises(UserError, match="ResNet-56's surface is not finished"):
        draw_surface.draw([nets(SURFACE)[0], nets(part)[1]])


def test_lesions():
    single, several, exchanged = draw_lesion.draw(nets(LESION)).axes
    np.testing.assert_array_equal(labelled(single, "plain-56").get_ydata(), [30.0, np.nan, 6.0])
    np.testing.assert_array_equal(labelled(several, "ResNet-56").get_xdata(), [0, 1, 2])
    np.testing.assert_array_equal(labelled(several, "ResNet-56").get_ydata(), [5.0, 15.0, 50.0])
    np.testing.assert_array_equal(labelled(exchanged, "ResNet-56").get_ydata(), [5.0, 9.0])
    dots = [line for line in several.lines if line.get_marker() == "o" and line.get_color() == COLOURS[0]]
    assert sorted(y for line in dots for y in line.get_ydata()) == [5.0, 10.0, 20.0, 40.0, 60.0]
    assert several.get_xlim()[1] > 2


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ([{}, {}], "test error"),
        ([{"data.held_out": 100}] * 2, "held-out error"),
        ([{"data.eval_split": "held_out", "data.held_out_share": 0.1}], "held-out error"),
        ([{"data.eval_split": "validation"}], "validation error"),
        ([{}, {"data.held_out": 100}], "test or held-out error"),
    ],
)
def test_lesions_say_what_the_runs_were_evaluated_on(tmp_path, tiny_config, fields, words):
    for k, changes in enumerate(fields):
        config = tiny_config()
        config.update_from_flattened_dict(changes)
        RunFolder(tmp_path / str(k)).open(config)
        (tmp_path / str(k) / "lesion.json").write_text(json.dumps(LESION))
    figure = draw_analysis("lesion", [[tmp_path / str(k)] for k in range(len(fields))])
    assert figure.axes[0].get_ylabel() == f"{words} (%)"
    assert figure.get_suptitle() == f"{words.capitalize()} with units removed or exchanged"


def test_cost():
    params, flops = draw_cost.draw({"small": ("cifar_resnet20", "cifar_resnet32")}).axes
    np.testing.assert_array_equal(labelled(params, "small").get_xdata(), [20, 32])
    np.testing.assert_array_equal(labelled(params, "small").get_ydata(), [269_722, 464_154])
    assert labelled(flops, "small").get_ydata()[0] == pytest.approx(0.041e9, rel=0.02)


@pytest.mark.parametrize("name", FIGURES)
def test_pictures_of_runs(name, tmp_path, tiny_config):
    """Two runs of one net are told apart by their folders; twice the same bytes; nothing of them is empty."""
    for folder in ("a", "b"):
        RunFolder(tmp_path / folder).open(tiny_config())
        (tmp_path / folder / f"{name}.json").write_text(json.dumps(FOUND[name]))
    folders = [tmp_path / "a", tmp_path / "b"]
    assert [net.label for net in load_nets(folders, f"{name}.json")] == ["ResNet-20 (a)", "ResNet-20 (b)"]
    first, second = (plot_analysis(name, folders, tmp_path / out) for out in ("one", "two"))
    assert [path.name for path in first] == [f"{name}.png", f"{name}.svg"]
    for one, two in zip(first, second, strict=True):
        assert one.read_bytes() == two.read_bytes()
    pixels = matplotlib.image.imread(first[0])
    assert (pixels[..., :3] < 0.5).any(-1).sum() > 2000


def test_what_cannot_be_drawn(tmp_path, tiny_config):
    with pytest.raises(UserError, match="unknown analysis 'lesions'; did you mean lesion"):
        plot_analysis("lesions", [tmp_path], tmp_path)
    with pytest.raises(UserError, match="holds no run"):
        plot_analysis("lesion", [tmp_path], tmp_path)
    RunFolder(tmp_path).open(tiny_config())
    with pytest.raises(UserError, match="there is no .*lesion.json"):
        plot_analysis("lesion", [tmp_path], tmp_path)
    (tmp_path / "lesion.json").write_text("[]")
    with pytest.raises(UserError, match="lesion.json.* is not what this version writes"):
        plot_analysis("lesion", [tmp_path], tmp_path)


def test_where_nothing_can_be_written(tmp_path, monkeypatch):
    monkeypatch.setattr(draw_cost, "FAMILIES", {"small": ("cifar_resnet20",)})
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="cannot write"):
        plot_analysis("cost", [], tmp_path / "file" / "out")
