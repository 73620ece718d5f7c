"""Overlap, coding and clipping of boxes.

A box is (x1, y1, x2, y2) in pixels, x to the right and y downwards, from the upper left corner of the image, as real
numbers: a box that covers the first pixel alone is (0, 0, 1, 1). Caffe's code counts pixels from 0 with both ends, so
that its x2 is ours minus 1; PASCAL VOC's files count from 1, so that their x1 is ours plus 1. Widths are the same.
"""

import math
from collections.abc import Sequence

import jax.numpy as jnp
from jax import Array

#: The largest logarithm by which `decode` scales a side: 1000 / 16, as in Detectron.
MOST_LOG_SCALE = math.log(1000 / 16)


def area(boxes: Array) -> Array:
    """Returns the areas (...) of boxes (..., 4); 0 for reversed ones."""
    sides = jnp.maximum(boxes[..., 2:] - boxes[..., :2], 0)
    return sides[..., 0] * sides[..., 1]


def intersection(boxes: Array, others: Array) -> Array:
    """Returns the common area of each of (..., n, 4) with each of (..., m, 4): (..., n, m)."""
    a, b = ([x[..., k] for k in range(4)] for x in (boxes[..., :, None, :], others[..., None, :, :]))
    width = jnp.minimum(a[2], b[2]) - jnp.maximum(a[0], b[0])
    height = jnp.minimum(a[3], b[3]) - jnp.maximum(a[1], b[1])
    return jnp.maximum(width, 0) * jnp.maximum(height, 0)


def iou(boxes: Array, others: Array) -> Array:
    """Returns the intersection over union of each of (..., n, 4) with each of (..., m, 4): (..., n, m).

    Two boxes without area have 0.
    """
    common = intersection(boxes, others)
    union = area(boxes)[..., :, None] + area(others)[..., None, :] - common
    return jnp.where(union > 0, common / jnp.where(union > 0, union, 1), 0)


def encode(boxes: Array, anchors: Array, deviations: Sequence[float] = (1, 1, 1, 1)) -> Array:
    """Returns what regression is to predict (Girshick et al. 2014, appendix C), (..., 4).

    The shifts of the centre in widths and heights of the anchor and the logarithms of the ratios of the sides, divided
    by `deviations`. Sides below a thousandth of a pixel count as that.
    """
    centres, sides = _centres(boxes)
    anchor_centres, anchor_sides = _centres(anchors)
    targets = jnp.concatenate([(centres - anchor_centres) / anchor_sides, jnp.log(sides / anchor_sides)], axis=-1)
    return targets / jnp.asarray(deviations, targets.dtype)


def decode(deltas: Array, anchors: Array, deviations: Sequence[float] = (1, 1, 1, 1)) -> Array:
    """Returns the boxes (..., 4) that `encode` would give these deltas; no side grows beyond `MOST_LOG_SCALE`."""
    deltas = deltas * jnp.asarray(deviations, deltas.dtype)
    anchor_centres, anchor_sides = _centres(anchors)
    centres = anchor_centres + deltas[..., :2] * anchor_sides
    half = anchor_sides * jnp.exp(jnp.minimum(deltas[..., 2:], MOST_LOG_SCALE)) / 2
    return jnp.concatenate([centres - half, centres + half], axis=-1)


def clip(boxes: Array, sizes: Array) -> Array:
    """Returns boxes (..., n, 4) cut to images of `sizes` (..., 2), (height, width)."""
    most = jnp.stack([sizes[..., 1], sizes[..., 0]] * 2, axis=-1).astype(boxes.dtype)
    return jnp.clip(boxes, 0, most[..., None, :])


def _centres(boxes: Array) -> tuple[Array, Array]:
    return (boxes[..., :2] + boxes[..., 2:]) / 2, jnp.maximum(boxes[..., 2:] - boxes[..., :2], 1e-3)
