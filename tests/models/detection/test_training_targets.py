"""What anchors and regions are trained on, against the papers' sentences, one box at a time."""

import jax
import numpy as np
import pytest

from resnet_jax.models.detection.regions import Boxes, Objects, Trained, train_anchors, train_regions
from tests.models.detection import definitions

SIZE = np.array([60, 80], np.int32)  # height and width

#: Two objects, a crowd, and an entry that is padding, though it has a box and a label.
BOXES = np.array([[5, 5, 30, 30], [40, 20, 70, 50], [0, 35, 25, 60], [45, 0, 75, 18]], np.float32)
LABELS = np.array([2, 0, 1, 4], np.int32)
VALID, CROWD = np.array([True, True, False, False]), np.array([False, False, True, False])


def candidates(seed: int) -> np.ndarray:
    """Boxes near the objects and anywhere, some across the border; boxes in the crowd are among them."""
    rng = np.random.default_rng(seed)
    near = np.repeat(BOXES, 30, axis=0) + rng.normal(0, 5, (120, 4)).astype(np.float32)
    anywhere = definitions.random_boxes(rng, 80, 60, degenerate=False) + rng.uniform(-5, 20, (80, 1))
    boxes = np.concatenate([near, anywhere]).astype(np.float32)
    boxes[:, 2:] = np.maximum(boxes[:, 2:], boxes[:, :2] + 2)
    # No box overlaps the second object much, so that it has none but its best.
    return boxes[[definitions.iou(box, BOXES[1]) < 0.6 for box in boxes]]


def kinds(boxes: np.ndarray, positive: float, negative: float, usable: np.ndarray, best: bool, crowd: bool) -> list:
    """Of each box: its object, "background", or None where it is neither."""
    overlaps = np.array([[definitions.iou(box, BOXES[k]) for k in (0, 1)] for box in boxes])
    highest = overlaps[usable].max(axis=0)
    found: list = []
    for box, row, can in zip(boxes, overlaps, usable, strict=True):
        width, height = (max(0.0, min(box[2 + k], BOXES[2, 2 + k]) - max(box[k], BOXES[2, k])) for k in (0, 1))
        in_crowd = crowd and width * height > 0.7 * (box[2] - box[0]) * (box[3] - box[1])
        if not can:
            found.append(None)
        elif row.max() >= positive or (best and (row == highest).any()):
            found.append(int(row.argmax()))
        else:
            found.append("background" if row.max() < negative and not in_crowd else None)
    return found


def check(trained: Trained, boxes: np.ndarray, expected: list, count: int, share: float, deviations: tuple) -> None:
    """As many as there are are drawn, none twice, each with its label and with Girshick's targets; the rest never."""
    indices, valid, labels, targets = (np.asarray(array) for array in trained)
    objects = [k for k, kind in enumerate(expected) if isinstance(kind, int)]
    background = [k for k, kind in enumerate(expected) if kind == "background"]
    drawn = indices[valid].tolist()
    assert len(set(drawn)) == len(drawn)
    of_objects = [k for k in drawn if isinstance(expected[k], int)]
    assert len(of_objects) == min(len(objects), int(count * share))
    assert len(drawn) - len(of_objects) == min(len(background), count - len(of_objects)) > 5
    assert set(drawn) <= {*objects, *background}
    for index, there, label, target in zip(indices, valid, labels, targets, strict=True):
        kind = expected[index] if there else "background"
        if kind == "background":
            assert label == 0 and not target.any()
            continue
        assert label == 1 + LABELS[kind]
        (ax1, ay1, ax2, ay2), (x1, y1, x2, y2) = np.float64(boxes[index]), np.float64(BOXES[kind])
        wanted = [(x1 + x2 - ax1 - ax2) / 2 / (ax2 - ax1), (y1 + y2 - ay1 - ay2) / 2 / (ay2 - ay1),
                  np.log((x2 - x1) / (ax2 - ax1)), np.log((y2 - y1) / (ay2 - ay1))]  # fmt: skip
        np.testing.assert_allclose(target, np.array(wanted) / deviations, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("count", [32, 400])
@pytest.mark.parametrize(("inside", "crowd"), [(True, True), (True, False), (False, True)])
def test_anchors(inside: bool, crowd: bool, count: int) -> None:
    """Ren et al. 2015, section 3.1.2: 0.7 and the best of each object, below 0.3, half of a batch; 3.1.3: borders.

    Of 400 all are drawn that can be.
    """
    anchors = candidates(1)
    crossing = (anchors[:, :2] < 0).any(axis=1) | (anchors[:, 2] > 80) | (anchors[:, 3] > 60)
    usable = ~crossing if inside else np.ones(len(anchors), bool)
    expected = kinds(anchors, 0.7, 0.3, usable, True, crowd)
    assert crossing.sum() > 20 and expected != kinds(anchors, 0.7, 0.3, usable, True, not crowd)
    assert expected.count(1) == 1, "the second object's best"
    objects = Objects(BOXES, LABELS, VALID, CROWD if crowd else None)
    trained = train_anchors(jax.random.key(0), anchors, SIZE, objects, count=count, inside=inside)
    check(trained, anchors, expected, count, 0.5, (1, 1, 1, 1))


@pytest.mark.parametrize("count", [64, 800])
@pytest.mark.parametrize("crowd", [True, False])
def test_regions(crowd: bool, count: int) -> None:
    """Girshick 2015, section 2.3: 0.5 is an object, less is background; the objects themselves are regions, too."""
    proposals = candidates(2)
    there = np.random.default_rng(0).random(len(proposals)) < 0.6
    boxes = np.concatenate([proposals, BOXES])
    usable = np.concatenate([there, VALID])
    expected = kinds(boxes, 0.5, 0.5, usable, False, crowd)
    assert expected[-4:] == [0, 1, None, None] and expected != kinds(boxes, 0.5, 0.5, usable, False, not crowd)
    objects = Objects(BOXES, LABELS, VALID, CROWD if crowd else None)
    seen, trained = train_regions(jax.random.key(0), Boxes(proposals, there), objects, count=count, share=0.25)
    np.testing.assert_array_equal(seen, boxes[np.asarray(trained.indices)])
    check(trained, boxes, expected, count, 0.25, (0.1, 0.1, 0.2, 0.2))
