"""Anchors, and which boxes are positive, negative or neither, against the papers' sentences one by one."""

import jax
import numpy as np
import pytest

from resnet_jax.models.detection.anchors import anchor_shapes, grid_anchors
from resnet_jax.models.detection.boxes import iou
from resnet_jax.models.detection.matching import NEGATIVE, NEITHER, match, sample
from tests.models.detection import definitions


def test_anchors_have_the_papers_areas_and_ratios() -> None:
    shapes = anchor_shapes((128, 256, 512), (0.5, 1, 2))
    areas, ratios = shapes.prod(axis=1), shapes[:, 1] / shapes[:, 0]
    np.testing.assert_allclose(areas, np.array([128, 256, 512] * 3) ** 2)
    np.testing.assert_allclose(ratios, np.repeat([0.5, 1, 2], 3))
    anchors = grid_anchors(3, 4, 16, shapes).reshape(3, 4, 9, 4)
    centres = (anchors[..., :2] + anchors[..., 2:]) / 2
    np.testing.assert_allclose(centres[2, 1], np.tile([24, 40], (9, 1)), atol=1e-3)  # x, y
    np.testing.assert_allclose(anchors[0, 0, 3], [-56, -56, 72, 72])


@pytest.mark.parametrize("best", [True, False])
def test_matching(best: bool) -> None:
    """Each anchor against Ren et al. 2015, section 3.1.2, with objects that are padding among those that count."""
    rng = np.random.default_rng(0)
    anchors, objects = definitions.random_boxes(rng, 200), definitions.random_boxes(rng, 12)
    there = np.arange(12) < 9
    overlaps = np.array([[definitions.iou(a, o) for o in objects] for a in anchors], np.float32)
    found = np.asarray(match(overlaps, there, 0.7, 0.3, best=best))
    for i, row in enumerate(overlaps[:, :9]):
        is_best = best and any(row[j] == overlaps[:, j].max() > 0 for j in range(9))
        if row.max() >= 0.7 or is_best:
            assert found[i] == row.argmax()
        else:
            assert found[i] == (NEGATIVE if row.max() < 0.3 else NEITHER)
    assert (found >= 0).any() and (found == NEITHER).any()


def test_without_objects_all_is_background() -> None:
    overlaps = iou(definitions.random_boxes(np.random.default_rng(0), 20), np.zeros((4, 4), np.float32))
    assert (match(overlaps, np.zeros(4, bool), 0.7, 0.3, best=True) == NEGATIVE).all()
    assert (match(overlaps, np.zeros(4, bool), 0.5, 0.5, lowest=0.1) == NEITHER).all()


@pytest.mark.parametrize(
    ("positives", "negatives", "expected"),
    [(50, 300, (32, 96)), (5, 300, (5, 123)), (50, 20, (32, 20)), (0, 300, (0, 128)), (0, 0, (0, 0))],
)
def test_sample(positives: int, negatives: int, expected: tuple[int, int]) -> None:
    """At most a quarter is positive; none comes twice; the key alone decides."""
    matches = np.full(400, NEITHER, np.int32)
    order = np.random.default_rng(0).permutation(400)
    matches[order[:positives]] = 3
    matches[order[positives : positives + negatives]] = NEGATIVE
    draw = jax.jit(lambda key: sample(key, matches, 128, 0.25))
    drawn = draw(jax.random.key(1))
    indices, valid, positive = (np.asarray(x) for x in drawn)
    assert (int(positive.sum()), int((valid & ~positive).sum())) == expected
    assert len(set(indices[valid])) == valid.sum()
    assert (matches[indices[positive]] >= 0).all() and (matches[indices[valid & ~positive]] == NEGATIVE).all()
    again, other = draw(jax.random.key(1)), draw(jax.random.key(2))
    np.testing.assert_array_equal(again.indices, indices)
    assert valid.sum() < 100 or not np.array_equal(other.indices, indices)


def test_sample_of_fewer_boxes_than_asked_for() -> None:
    drawn = sample(jax.random.key(0), np.array([0, NEGATIVE, NEITHER], np.int32), 8, 0.25)
    assert np.asarray(drawn.valid).tolist() == [True, True] + [False] * 6
    assert np.asarray(drawn.indices)[:2].tolist() == [0, 1] and np.asarray(drawn.positive).sum() == 1


def test_every_negative_is_drawn_alike() -> None:
    matches = np.full(40, NEGATIVE, np.int32)
    draw = jax.jit(jax.vmap(lambda key: sample(key, matches, 10, 0.5).indices))
    counts = np.bincount(np.asarray(draw(jax.random.split(jax.random.key(0), 2000))).ravel(), minlength=40)
    assert abs(counts - 500).max() < 5 * np.sqrt(500 * 0.75)
