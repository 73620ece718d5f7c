"""Features of regions on one level or several: each region is pooled from the level that suits its size."""

import math
from collections.abc import Callable, Sequence
from functools import partial

import jax
import jax.numpy as jnp
from jax import Array

from resnet_jax.models.detection.boxes import area
from resnet_jax.models.detection.roi import roi_align, roi_max_pool, sample_points

#: Ways to take the features of a region; "align_v1" is RoIAlign as it first was, half a position off.
POOLS: dict[str, Callable[..., Array]] = {
    "max": roi_max_pool, "align": roi_align, "align_v1": partial(roi_align, aligned=False),
}  # fmt: skip

#: A region of this side in pixels, that of ImageNet's crops, is pooled from the level of this stride.
CANONICAL_SIDE, CANONICAL_STRIDE = 224, 16


def level_of(boxes: Array, strides: Sequence[int]) -> Array:
    """Returns the level of each box (n, 4), int32 (n,), 0 for the finest (Lin et al. 2017, "FPN", equation 1).

    A box of twice the side has the next level. As in Detectron, its logarithm is rounded down with a millionth to
    spare.
    """
    octaves = jnp.log2(jnp.sqrt(area(boxes)) / CANONICAL_SIDE)
    level = jnp.floor(math.log2(CANONICAL_STRIDE) + octaves + 1e-6) - math.log2(strides[0])
    return jnp.clip(level, 0, len(strides) - 1).astype(jnp.int32)


def pool_levels(features: Sequence[Array], boxes: Array, *, kind: str, size: int, strides: Sequence[int],
                precision: str | None = None) -> Array:  # fmt: skip
    """Pools each box from its level.

    Of several levels an accelerator pools all boxes from each by matrix products, and takes those that belong to it:
    mostly work for nothing, in the form that it is good at, with a gradient that is always summed in one order. A CPU
    gathers samples instead, which takes it a hundredth of the time; docs/detection.md has the figures.

    Args:
      features: of the levels, the finest first, (height, width, channels).
      boxes: (n, 4), in pixels of the image.
      kind: a key of `POOLS`.
      size: bins on a side.
      strides: pixels from one position of each level to the next.
      precision: of products, on accelerators; see `layers.precision_of`.

    Returns:
      (n, size, size, channels). No gradient goes to the boxes.
    """
    pool = POOLS[kind] if kind == "max" else partial(POOLS[kind], precision=precision)
    if len(features) == 1:
        return pool(features[0], boxes, size=size, scale=1 / strides[0])
    boxes = jax.lax.stop_gradient(boxes)

    def by_products(features: Sequence[Array], boxes: Array) -> Array:
        own = level_of(boxes, strides)
        found = jnp.zeros((), features[0].dtype)
        for level, (x, stride) in enumerate(zip(features, strides, strict=True)):
            pooled = pool(x, boxes, size=size, scale=1 / stride)
            found = jnp.where((own == level)[:, None, None, None], pooled, found)
        return found

    if kind == "max":
        return by_products(features, boxes)
    by_gathers = partial(gathered_roi_align, size=size, strides=tuple(strides), aligned=kind == "align")
    return jax.lax.platform_dependent(tuple(features), boxes, cpu=by_gathers, default=by_products)


def gathered_roi_align(features: Sequence[Array], boxes: Array, size: int, strides: Sequence[int], *,
                       samples: int = 2, aligned: bool = True) -> Array:  # fmt: skip
    """Computes `roi.roi_align` of each box on its level: gathers the four positions around each sample.

    Memory is that of a few outputs: of each bin one position is gathered at a time.

    Args:
      features, boxes, size, strides: see `pool_levels`.
      samples, aligned: see `roi.roi_align`.
    """
    own = level_of(boxes, strides)
    heights, widths = (jnp.array([x.shape[axis] for x in features], jnp.int32)[own] for axis in (0, 1))
    counts = [x.shape[0] * x.shape[1] for x in features]
    starts = jnp.array([sum(counts[:level]) for level in range(len(counts))], jnp.int32)[own]
    flat = jnp.concatenate([x.reshape(-1, x.shape[-1]) for x in features])
    boxes = boxes / jnp.array(strides, jnp.float32)[own][:, None] - (0.5 if aligned else 0.0)

    def taps(first: Array, last: Array, lengths: Array) -> tuple[Array, Array]:
        """Returns the two positions around each sample of one axis, and their weights, (n, size, 2 * samples)."""
        points, inside = sample_points(first, last, lengths[:, None], size, samples, aligned)
        left = jnp.floor(points).astype(jnp.int32)
        positions = jnp.stack([left, jnp.minimum(left + 1, lengths[:, None] - 1)], axis=-1)
        weights = jnp.stack([1 - (points - left), points - left], axis=-1) * inside[..., None] / samples
        return positions.reshape(len(boxes), size, -1), weights.reshape(len(boxes), size, -1)

    rows, row_weights = taps(boxes[:, 1], boxes[:, 3], heights)
    columns, column_weights = taps(boxes[:, 0], boxes[:, 2], widths)
    found = jnp.zeros((len(boxes), size, size, flat.shape[-1]), jnp.float32)
    for i in range(2 * samples):
        for j in range(2 * samples):
            places = (starts[:, None] + rows[..., i] * widths[:, None])[:, :, None] + columns[:, None, :, j]
            found += flat[places] * (row_weights[:, :, None, i] * column_weights[:, None, :, j])[..., None]
    return found.astype(flat.dtype)
