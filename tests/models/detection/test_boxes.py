"""Overlap, coding and suppression of boxes against their definitions."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from resnet_jax.models.detection import nms as suppression
from resnet_jax.models.detection.boxes import clip, decode, encode, intersection, iou
from resnet_jax.models.detection.nms import nms
from tests.models.detection import definitions


def test_iou_is_common_over_joint_area() -> None:
    rng = np.random.default_rng(0)
    a, b = definitions.random_boxes(rng, 20), definitions.random_boxes(rng, 30)
    expected = [[definitions.iou(one, other) for other in b] for one in a]
    np.testing.assert_allclose(iou(a, b), expected, atol=1e-6)
    assert iou(a, a)[2, 6] == 0  # twice the same without area
    assert float(intersection(jnp.array([[0.0, 0, 2, 2]]), jnp.array([[1.0, 1, 5, 5]]))[0, 0]) == 1


def test_coding_goes_back_and_forth() -> None:
    rng = np.random.default_rng(1)
    anchors = definitions.random_boxes(rng, 50, degenerate=False) + [0, 0, 4, 4]
    boxes = definitions.random_boxes(rng, 50, degenerate=False) + [0, 0, 2, 3]
    deviations = (0.1, 0.1, 0.2, 0.2)
    deltas = encode(boxes, anchors, deviations)
    np.testing.assert_allclose(decode(deltas, anchors, deviations), boxes, atol=1e-3)
    # By Girshick's formulas, for one box.
    (ax1, ay1, ax2, ay2), (x1, y1, x2, y2) = anchors[7], boxes[7]
    expected = [
        ((x1 + x2) / 2 - (ax1 + ax2) / 2) / (ax2 - ax1) / 0.1, ((y1 + y2) / 2 - (ay1 + ay2) / 2) / (ay2 - ay1) / 0.1,
        np.log((x2 - x1) / (ax2 - ax1)) / 0.2, np.log((y2 - y1) / (ay2 - ay1)) / 0.2,
    ]  # fmt: skip
    np.testing.assert_allclose(deltas[7], expected, rtol=1e-4, atol=1e-4)
    huge = decode(jnp.full((1, 4), 1e6), jnp.array([[0.0, 0, 10, 10]]))
    assert np.isfinite(huge).all() and float(huge[0, 2] - huge[0, 0]) <= 626


def test_degenerate_boxes_have_finite_targets() -> None:
    boxes = definitions.random_boxes(np.random.default_rng(2), 10)
    assert np.isfinite(encode(boxes, boxes[::-1])).all()
    np.testing.assert_array_equal(clip(jnp.array([[-5.0, 3, 70, 90]]), jnp.array([50, 60])), [[0, 3, 60, 50]])


@pytest.fixture(scope="module")
def cases() -> list[tuple[np.ndarray, np.ndarray]]:
    """Boxes spread out, crowded, in a long chain of overlaps, and all alike; equal scores among them."""
    rng = np.random.default_rng(3)
    spread, crowded = definitions.random_boxes(rng, 120), definitions.random_boxes(rng, 120, side=8)
    chain = np.stack([np.arange(120) * 2.0, np.zeros(120), np.arange(120) * 2.0 + 10, np.full(120, 10)], axis=1)
    same = np.tile(np.array([[1.0, 1, 5, 5]]), (120, 1))
    scores = rng.integers(0, 60, 120).astype(np.float32)
    return [(boxes.astype(np.float32), scores) for boxes in (spread, crowded, chain, same)] + [
        (chain.astype(np.float32), -np.arange(120, dtype=np.float32))
    ]


@pytest.mark.parametrize("block", [1024, 32, 7])
def test_nms_equals_the_greedy_one(cases: list, block: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """At every threshold, whether the boxes are decided at once or in blocks."""
    monkeypatch.setattr(suppression, "BLOCK", block)
    keep = jax.jit(lambda boxes, scores, threshold: nms(boxes, scores, threshold, 120))
    for boxes, scores in cases:
        for tenth in range(1, 10):
            kept = keep(boxes, scores, tenth / 10)
            expected = definitions.greedy_nms(boxes, scores, np.float32(tenth / 10))
            assert np.asarray(kept.indices)[np.asarray(kept.valid)].tolist() == expected, tenth
            assert not np.asarray(kept.valid)[len(expected) :].any()


@pytest.mark.parametrize("block", [1024, 16])
def test_nms_returns_the_best_of_what_there_is(cases: list, block: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(suppression, "BLOCK", block)
    boxes, scores = cases[0]
    there = np.arange(120) % 3 > 0
    few_of = jax.jit(lambda there: nms(boxes, scores, 0.5, 10, there))
    few = few_of(there)
    expected = np.flatnonzero(there)[definitions.greedy_nms(boxes[there], scores[there], 0.5)].tolist()
    assert np.asarray(few.indices).tolist() == expected[:10] and np.asarray(few.valid).all()
    assert not np.asarray(few_of(np.zeros(120, bool)).valid).any()
    each = jax.jit(jax.vmap(lambda s: nms(boxes, s, 0.3, 120).indices))(np.stack([scores, -scores]))
    for row, order in zip(each, (scores, -scores), strict=True):
        kept = definitions.greedy_nms(boxes, order, 0.3)
        assert np.asarray(row)[: len(kept)].tolist() == kept
