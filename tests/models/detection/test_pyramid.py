"""Several levels of features: which one a region has, its features, anchors, proposals; against the definitions."""

import math
from functools import partial

import jax
import numpy as np
import pytest

from resnet_jax.models.detection.anchors import anchor_shapes, grid_anchors
from resnet_jax.models.detection.nms import nms
from resnet_jax.models.detection.regions import propose
from resnet_jax.models.detection.roi_levels import gathered_roi_align, level_of, pool_levels
from tests.models.detection import definitions

STRIDES = (4, 8, 16)


def expected_level(box: np.ndarray) -> int:
    """Lin et al. 2017, equation 1, with levels 2 to 4."""
    side = math.sqrt(max(float((box[2] - box[0]) * (box[3] - box[1])), 1e-9))
    return min(max(math.floor(4 + math.log2(side / 224) + 1e-6), 2), 4) - 2


@pytest.fixture(scope="module")
def boxes() -> np.ndarray:
    """In an image of 480x320 pixels, of all sizes, with degenerate ones; 112 and 224 pixels are where levels change."""
    found = definitions.random_boxes(np.random.default_rng(0), 20, side=320)
    return np.concatenate([found, [[0, 0, 112, 112], [0, 0, 111.9, 112], [9, 9, 233, 233], [5, 5, 20, 300]]]).astype(
        np.float32
    )


def test_levels_of_regions(boxes: np.ndarray) -> None:
    expected = [expected_level(box) for box in boxes]
    assert np.asarray(level_of(boxes, STRIDES)).tolist() == expected
    assert expected[-4:-1] == [1, 0, 2] and set(expected) == {0, 1, 2}


@pytest.mark.parametrize(("kind", "aligned"), [("align", True), ("align_v1", False)])
def test_each_region_is_pooled_from_its_level(boxes: np.ndarray, kind: str, aligned: bool) -> None:
    """By gathers, as on a CPU, and by the products of an accelerator, which the gradients of both show, too."""
    rng = np.random.default_rng(1)
    levels = [rng.normal(size=(480 // s, 320 // s, 2)).astype(np.float32) for s in STRIDES]
    weights = rng.normal(size=(len(boxes), 3, 3, 2)).astype(np.float32)

    def gathered(levels: list) -> jax.Array:
        return gathered_roi_align(levels, boxes, 3, STRIDES, aligned=aligned)

    def by_products(levels: list) -> jax.Array:  # of each level by itself, which is no matter of the platform
        own = level_of(boxes, STRIDES)
        each = [pool_levels([x], boxes, kind=kind, size=3, strides=[s]) for x, s in zip(levels, STRIDES, strict=True)]
        return sum(one * (own == k)[:, None, None, None] for k, one in enumerate(each))

    def chosen(levels: list) -> jax.Array:
        return pool_levels(levels, boxes, kind=kind, size=3, strides=STRIDES)

    expected = [
        definitions.roi_align(levels[level], box, 3, 1 / STRIDES[level], 2, aligned)
        for box, level in zip(boxes, map(expected_level, boxes), strict=True)
    ]
    gradients = []
    for pool in (gathered, by_products, chosen):
        found, gradient = jax.jit(lambda x, pool=pool: jax.vjp(pool, x)[1](weights) + (pool(x),))(levels)[::-1]
        np.testing.assert_allclose(found, expected, atol=2e-5)
        gradients.append(gradient)
    for other in gradients[1:]:
        for one, two in zip(gradients[0], other, strict=True):
            np.testing.assert_allclose(one, two, atol=2e-4)
    exported = jax.export.export(jax.jit(chosen), platforms=("tpu",))(levels)
    assert "stablehlo.dot_general" in exported.mlir_module() and "gather" not in exported.mlir_module()


def test_max_pooling_from_levels(boxes: np.ndarray) -> None:
    rng = np.random.default_rng(1)
    levels = [rng.normal(size=(480 // s, 320 // s, 2)).astype(np.float32) for s in STRIDES]
    found = jax.jit(lambda x: pool_levels(x, boxes, kind="max", size=2, strides=STRIDES))(levels)
    for box, level, one in zip(boxes, map(expected_level, boxes), found, strict=True):
        np.testing.assert_array_equal(
            one, definitions.roi_max_pool(levels[level], box, 2, 1 / STRIDES[level]).astype(np.float32)
        )


def test_anchors_are_torchvisions() -> None:
    """Recorded of torchvision 0.28's AnchorGenerator: `cell_anchors` of 32 pixels, and a row of 13 on 800 pixels."""
    anchors = grid_anchors(13, 13, (61, 61), anchor_shapes((32,), (0.5, 1, 2)), "torchvision").reshape(13, 13, 3, 4)
    np.testing.assert_array_equal(anchors[0, 0], [[-23, -11, 23, 11], [-16, -16, 16, 16], [-11, -23, 11, 23]])
    np.testing.assert_array_equal(anchors[2, 12, 1], [12 * 61 - 16, 2 * 61 - 16, 12 * 61 + 16, 2 * 61 + 16])


@pytest.mark.parametrize("block", [1024, 16])
def test_nms_of_groups_is_that_of_each(block: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("resnet_jax.models.detection.nms.BLOCK", block)
    rng = np.random.default_rng(2)
    boxes, scores, groups = definitions.random_boxes(rng, 90, side=20), rng.normal(size=90), rng.integers(0, 3, 90)
    expected = []
    for group in range(3):
        (members,) = np.nonzero(groups == group)
        expected += members[definitions.greedy_nms(boxes[members], scores[members], 0.4)].tolist()
    expected.sort(key=lambda i: -scores[i])
    for most in (90, 7):
        kept = jax.jit(lambda most=most: nms(boxes, scores.astype(np.float32), 0.4, most, None, groups))()
        assert np.asarray(kept.indices)[np.asarray(kept.valid)].tolist() == expected[:most]


def test_proposals_of_levels() -> None:
    """The best 12 of each level, NMS in each by itself, then the best 15 of all."""
    rng = np.random.default_rng(3)
    anchors = [definitions.random_boxes(rng, count, degenerate=False) for count in (40, 20, 8)]
    logits = [rng.normal(size=len(one)).astype(np.float32) for one in anchors]
    zeros = [np.zeros_like(one) for one in anchors]  # each proposal is its anchor
    best_of = partial(propose, before=12, after=15, threshold=0.3, smallest=1.0)
    found = jax.jit(best_of)(anchors, logits, zeros, np.array([60, 60]))
    expected = []
    for boxes, scores in zip(anchors, logits, strict=True):
        best = np.argsort(-scores)[:12]
        best = best[(boxes[best, 2:] - boxes[best, :2] >= 1).all(axis=1)]
        kept = best[definitions.greedy_nms(boxes[best], scores[best], 0.3)]
        expected += [(scores[i], boxes[i]) for i in kept]
    expected = [box for _, box in sorted(expected, key=lambda pair: -pair[0])][:15]
    there = np.asarray(found.valid)
    np.testing.assert_allclose(np.asarray(found.boxes)[there], expected[: there.sum()], atol=1e-4)
    assert there.sum() == len(expected)
