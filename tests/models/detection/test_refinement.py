"""Box voting, the choice of two sizes, and the selection of detections, against NumPy written from the definitions."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from resnet_jax.evaluation.find_objects import best_boxes
from resnet_jax.models.detection.pyramid import nearest_pair
from resnet_jax.models.detection.regions import Predictions, select
from resnet_jax.models.detection.voting import vote
from tests.models.detection import definitions


def voted(kept: np.ndarray, boxes: np.ndarray, scores: np.ndarray, threshold: float) -> np.ndarray:
    """Gidaris and Komodakis 2015, equation 7: one box at a time."""
    found = []
    for box in kept:
        votes = [(max(0.0, score), other) for other, score in zip(boxes, scores, strict=True)
                 if definitions.iou(box, other) >= threshold]  # fmt: skip
        total = sum(weight for weight, _ in votes)
        found.append(sum(weight * np.float64(other) for weight, other in votes) / total if total > 0 else box)
    return np.array(found)


@pytest.mark.parametrize("side", [60.0, 12.0])
@pytest.mark.parametrize("threshold", [0.3, 0.5, 0.9])
def test_voting(side: float, threshold: float) -> None:
    """Also with equal boxes, boxes without area, and scores of 0 and below, which do not vote."""
    rng = np.random.default_rng(int(side))
    boxes, scores = definitions.random_boxes(rng, 40, side), rng.uniform(-0.2, 1, 40).astype(np.float32)
    scores[:3] = 0
    kept = np.concatenate([boxes[:20], definitions.random_boxes(rng, 10, side)])
    found = jax.jit(vote, static_argnums=3)(kept, boxes, scores, threshold)
    np.testing.assert_allclose(found, voted(kept, boxes, scores, threshold), rtol=1e-5, atol=1e-4)


def test_two_neighbouring_sizes_are_the_nearest() -> None:
    """The two of five sizes at which a region's pixels are closest in number to 224 x 224, whatever its shape."""
    rng = np.random.default_rng(0)
    boxes = np.concatenate([definitions.random_boxes(rng, 60, 600), definitions.random_boxes(rng, 60, 100)])
    sides = np.array([200, 400, 600, 800, 1000])
    scales = np.stack([sides / 600, sides / 600 * 1.002], axis=1)  # heights and widths are rounded, each by itself
    pair = jax.jit(lambda boxes: nearest_pair(boxes, jnp.asarray(scales, jnp.float32), 224))
    found = np.asarray(pair(boxes))
    firsts = set()
    for box, first in zip(boxes, found, strict=True):
        x1, y1, x2, y2 = np.float64(box)
        pixels = (y2 - y1) * scales[:, 0] * (x2 - x1) * scales[:, 1]
        if pixels[0] > 0:  # a box without area is as far from each
            assert sorted(np.argsort(np.abs(pixels - 224**2))[:2]) == [first, first + 1]
            firsts.add(int(first))
    assert firsts == {0, 1, 2, 3}
    assert pair(np.tile(np.float32([[0, 0, 75, 75]]), (len(boxes), 1)))[0] == 3  # which would need 1,800 pixels


@pytest.fixture(scope="module")
def predictions() -> Predictions:
    rng = np.random.default_rng(1)
    boxes = np.stack([definitions.random_boxes(rng, 60, 30) for _ in range(3)], axis=1)
    scores = rng.dirichlet(np.ones(4), 60).astype(np.float32)[:, 1:]
    return Predictions(jnp.asarray(boxes), jnp.asarray(scores), jnp.asarray(rng.random(60) < 0.9))


@pytest.mark.parametrize("voting", [None, 0.5])
def test_selection(predictions: Predictions, voting: float | None) -> None:
    """NMS among the boxes of each class, then voting by all of them, then the best of all classes; scores stay."""
    found = jax.jit(partial(select, threshold=0.3, least=0.2, most=25, voting=voting))(predictions)
    expected = []
    for label in range(3):
        boxes, scores = np.asarray(predictions.boxes[:, label]), np.asarray(predictions.scores[:, label])
        sides = boxes[:, 2:] - boxes[:, :2]
        there = np.asarray(predictions.valid) & (scores >= 0.2) & (sides.min(axis=1) > 0)
        boxes, scores = boxes[there], scores[there]
        kept = definitions.greedy_nms(boxes, scores, 0.3)
        final = boxes[kept] if voting is None else voted(boxes[kept], boxes, scores, voting)
        expected += [(score, label, box) for score, box in zip(scores[kept], final, strict=True)]
    expected = sorted(expected, key=lambda one: -one[0])[:25]
    there = np.asarray(found.valid)
    assert there.sum() == len(expected) > 10
    np.testing.assert_allclose(found.scores[there], [score for score, *_ in expected], rtol=1e-6)
    assert np.asarray(found.labels)[there].tolist() == [label for _, label, _ in expected]
    np.testing.assert_allclose(found.boxes[there], [box for *_, box in expected], rtol=1e-5, atol=1e-4)


def test_a_region_is_refined_to_the_box_of_its_best_class(predictions: Predictions) -> None:
    one = jax.tree.map(lambda array: array[None], predictions)
    regions = jax.jit(best_boxes)(one)
    for k, best in enumerate(np.argmax(predictions.scores, axis=1)):
        box = np.asarray(predictions.boxes[k, best])
        np.testing.assert_array_equal(regions.boxes[0, k], box)
        assert bool(regions.valid[0, k]) == bool(predictions.valid[k] and (box[2:] > box[:2]).all())
