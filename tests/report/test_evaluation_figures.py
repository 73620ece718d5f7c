"""What pictures of tests show, read back from the figures and pixels, against the numbers that they are of."""

from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from resnet_jax.report.draw_boxes import COLOURS, draw_boxes
from resnet_jax.report.draw_detection import curves_figure
from resnet_jax.report.draw_evaluation import confusion_figure, reliability_figure
from resnet_jax.report.overlay import class_colours, colour_classes, write_mask
from resnet_jax.tasks.average_precision import Curve, area_under


def a_test(models=("cifar_resnet20",), **fields):
    result = SimpleNamespace(models=models, protocol="single_view", examples=1000, evaluated_on="held_out")
    return SimpleNamespace(result=result, **fields)


def test_reliability_is_accuracy_by_confidence():
    """By hand, of two classes in three bins: the first guess of 4 images has a score of 0.6, of 2 one of 0.9."""
    scores = np.array([[0.6, 0.4]] * 3 + [[0.4, 0.6]] + [[0.1, 0.9]] * 2)
    figure = reliability_figure(a_test(scores=scores, labels=np.array([0, 1, 1, 1, 1, 1])))
    top, bottom = figure.axes
    _, net = top.lines
    np.testing.assert_allclose(net.get_xydata(), [[0.6, 0.5], [0.9, 1.0]])
    heights = {round(bar.get_x() + bar.get_width() / 2, 6): bar.get_height() for bar in bottom.patches}
    assert sum(heights.values()) == pytest.approx(1)
    for confidence, share in ((0.6, 4 / 6), (0.9, 2 / 6)):
        nearest = min(heights, key=lambda middle: (round(abs(middle - confidence), 6), -heights[middle]))
        assert heights[nearest] == pytest.approx(share)
    # Off by 0.1 in both bins.
    assert top.get_title("left") == "expected calibration error 10.00 %"


def test_confusion_is_percent_of_a_class():
    guesses = np.array([0, 0, 0, 1, 2, 2])
    figure = confusion_figure(a_test(("a", "a"), scores=np.eye(3)[guesses], labels=np.array([0, 0, 0, 0, 1, 2])))
    panel = figure.axes[0]
    shown = panel.images[0].get_array().filled(0)
    np.testing.assert_allclose(shown, [[75, 25, 0], [0, 0, 100], [0, 0, 100]])  # rows are classes
    assert {text.get_position(): text.get_text() for text in panel.texts} == {
        (0, 0): "75.0", (1, 0): "25.0", (2, 1): "100", (2, 2): "100"
    }  # fmt: skip
    assert figure.get_suptitle().startswith("a (2 runs): single view, 1,000 ")


def test_curves_of_precision_have_the_area_that_is_said():
    curves = (
        Curve(np.array([0.25, 0.25, 0.5, 0.75]), np.array([1.0, 0.5, 2 / 3, 0.75]), 4),
        Curve(np.array([0.0, 0.5]), np.array([0.0, 0.5]), 2),
        Curve(np.zeros(0), np.zeros(0), 3),  # nothing is found
        Curve(np.zeros(1), np.zeros(1), 0),  # no object, no line
    )
    figure = curves_figure(a_test(curves=curves, classes=("a", "b", "$c$", "d")))
    panel = figure.axes[0]
    areas = {}
    for line in panel.lines:
        recall, precision = line.get_xdata(), line.get_ydata()
        assert line.get_drawstyle() == "steps-pre"  # each precision holds back to the recall before
        areas[line.get_label()] = np.sum(np.diff(recall) * precision[1:])
    assert areas == {
        "62.5 % a, 4 objects": pytest.approx(0.25 * 1 + 0.5 * 0.75),
        "25.0 % b, 2 objects": pytest.approx(0.5 * 0.5),
        "0.0 % $c$, 3 objects": 0,
    }
    assert list(areas.values()) == [pytest.approx(area_under(curve)) for curve in curves[:3]]
    assert "29.17 %" in panel.get_title("left")  # the mean of three
    figure.draw_without_rendering()


def test_colours_of_classes_are_those_of_the_devkit(tmp_path):
    """VOCcolormap's first colours, that of label 20, a television, and that of 255, which is ignored."""
    colours = class_colours(256)
    first = [(0, 0, 0), (128, 0, 0), (0, 128, 0), (128, 128, 0), (0, 0, 128), (128, 0, 128), (0, 128, 128),
             (128, 128, 128), (64, 0, 0), (192, 0, 0), (64, 128, 0)]  # fmt: skip
    assert [tuple(colour) for colour in colours[:11].tolist()] == first
    assert colours[20].tolist() == [0, 64, 128] and colours[255].tolist() == [224, 224, 192]

    labels = np.array([[0, 1], [20, 255]], np.uint8)
    with Image.open(write_mask(tmp_path / "new" / "mask.png", labels)) as image:
        np.testing.assert_array_equal(np.asarray(image), labels)
        np.testing.assert_array_equal(np.asarray(image.convert("RGB")), colours[labels])
    pixels = np.full((2, 2, 3), 100, np.uint8)
    found = colour_classes(pixels, labels, weight=0.5)
    assert found[0, 0].tolist() == [100, 100, 100], "the background stays"
    assert found[0, 1].tolist() == [114, 50, 50] and found[1, 0].tolist() == [50, 82, 114]


def test_boxes_are_drawn_where_they_are_the_best_on_top():
    """Of 112 pixels each is drawn as two: of a box from 10 to 40 the outline is in the pixels 20 and 79."""
    pixels = np.full((112, 150, 3), 9, np.uint8)
    drawn = draw_boxes(pixels, [(10, 20, 40, 60), (10, 20, 40, 80)], [0, 1], ["", ""])
    assert drawn.shape == (224, 300, 3)
    outline = np.zeros((224, 300), bool)
    for x1, y1, x2, y2 in ((20, 40, 79, 119), (20, 40, 79, 159)):
        outline[[y1, y2], x1 : x2 + 1] = outline[y1 : y2 + 1, [x1, x2]] = True
    np.testing.assert_array_equal((drawn != 9).any(axis=-1), outline)
    assert drawn[40, 20].tolist() == list(COLOURS[0]), "the first, which is the best, lies over the other"
    assert drawn[159, 20].tolist() == list(COLOURS[1])
    named = draw_boxes(pixels, [(10, 20, 40, 60)], [7], ["dog 0.9"])[42:52, 22:78]
    plate = (named == COLOURS[0]).all(axis=-1)  # seven colours, then again the first
    assert 0.2 < plate.mean() < 0.9, "a plate with letters on it"
