"""Non-maximum suppression that equals the greedy algorithm at every threshold, in static shapes."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from resnet_jax.models.detection.boxes import iou

#: Boxes that are decided together; it bounds the memory to so many rows of the table of overlaps.
BLOCK = 1024


class Kept(NamedTuple):
    """Indices of the boxes that are kept, int32 (most,), the best first, and which of the entries are any, bool."""

    indices: Array
    valid: Array


def nms(boxes: Array, scores: Array, threshold: float, most: int, valid: Array | None = None,
        groups: Array | None = None) -> Kept:  # fmt: skip
    """Keeps each box that overlaps no better kept one by more than `threshold`, up to `most` of them.

    The greedy algorithm takes the boxes one by one. Here a block of them is decided at once, by the only solution of
    keep[i] = not any(keep[j] and iou[j, i] > threshold for j better than i). Iterated from "all", the first box is
    right after one iteration, and each one after as many as its longest chain of overlaps with better ones. The blocks
    end where `most` are kept.

    Args:
      boxes: (n, 4).
      scores: (n,); of equal ones the first is better.
      threshold: of the intersection over union.
      most: number of entries that are returned.
      valid: bool (n,), which boxes there are; all by default.
      groups: int32 (n,); boxes of different groups, as classes, do not compete. All are of one by default.
    """
    boxes, count = jnp.asarray(boxes), len(boxes)
    there = jnp.ones(count, bool) if valid is None else valid
    groups = jnp.zeros(count, jnp.int32) if groups is None else jnp.asarray(groups)
    order = jnp.argsort(jnp.where(there, -scores, jnp.inf), stable=True).astype(jnp.int32)
    size = min(BLOCK, count)
    padding = -count % size
    ordered = jnp.pad(boxes[order], ((0, padding), (0, 0)))
    group = jnp.pad(groups[order], (0, padding))
    alive = jnp.pad(there[order], (0, padding))
    blocks = (jnp.sum(there) + size - 1) // size  # those that are there come first
    if count == size:
        keep = _decide(ordered, group, alive, threshold)
    else:

        def decide(state: tuple[Array, Array]) -> tuple[Array, Array]:
            block, keep = state
            start = block * size
            mine, own = (jax.lax.dynamic_slice_in_dim(array, start, size) for array in (ordered, group))
            (better,) = jnp.nonzero(keep & (jnp.arange(len(keep)) < start), size=most, fill_value=len(keep))
            beats = _beats(ordered[better], group[better], mine, own, threshold) & (better < len(keep))[:, None]
            candidates = jax.lax.dynamic_slice_in_dim(keep, start, size) & ~jnp.any(beats, axis=0)
            found = _decide(mine, own, candidates, threshold)
            return block + 1, jax.lax.dynamic_update_slice_in_dim(keep, found, start, 0)

        def unfinished(state: tuple[Array, Array]) -> Array:
            block, keep = state
            decided = keep & (jnp.arange(len(keep)) < block * size)
            return (block < blocks) & (jnp.sum(decided) < most)

        _, keep = jax.lax.while_loop(unfinished, decide, (jnp.zeros((), jnp.int32), alive))
    (found,) = jnp.nonzero(keep[:count], size=most, fill_value=count)
    return Kept(order[jnp.minimum(found, count - 1)], found < count)


def _beats(boxes: Array, groups: Array, others: Array, their_groups: Array, threshold: float) -> Array:
    """Returns bool (n, m): which boxes overlap which others of their group by more than `threshold`."""
    return (iou(boxes, others) > threshold) & (groups[:, None] == their_groups)


def _decide(boxes: Array, groups: Array, candidates: Array, threshold: float) -> Array:
    """Returns which of the candidates, bool (n,), are kept; the boxes are sorted, the best first."""
    places = jnp.arange(len(boxes))
    beats = _beats(boxes, groups, boxes, groups, threshold) & (places[:, None] < places)

    def iterate(state: tuple[Array, Array]) -> tuple[Array, Array]:
        keep, _ = state
        new = candidates & ~jnp.any(beats & keep[:, None], axis=0)
        return new, jnp.any(new != keep)

    keep, _ = jax.lax.while_loop(lambda state: state[1], iterate, (candidates, jnp.array(True)))
    return keep
