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


def nms(boxes: Array, scores: Array, threshold: float, most: int, valid: Array | None = None) -> Kept:
    """Keeps each box that overlaps no better kept one by more than `threshold`, up to `most` of them.

    The greedy algorithm takes the boxes one by one. Here a block of them is decided at once, by the only solution of
    keep[i] = not any(keep[j] and iou[j, i] > threshold for j better than i). Iterated from "all", the first box is
    right after one iteration, and each one after as many as its longest chain of overlaps with better ones.

    Args:
      boxes: (n, 4).
      scores: (n,); of equal ones the first is better.
      threshold: of the intersection over union.
      most: number of entries that are returned.
      valid: bool (n,), which boxes there are; all by default.
    """
    boxes, count = jnp.asarray(boxes), len(boxes)
    there = jnp.ones(count, bool) if valid is None else valid
    order = jnp.argsort(jnp.where(there, -scores, jnp.inf), stable=True).astype(jnp.int32)
    size = min(BLOCK, count)
    padding = -count % size
    ordered = jnp.pad(boxes[order], ((0, padding), (0, 0)))
    alive = jnp.pad(there[order], (0, padding))
    places = jnp.arange(size)

    def decide(block: Array, keep: Array) -> Array:
        """Decides a block, with all blocks ahead of it decided."""
        start = block * size
        mine = jax.lax.dynamic_slice_in_dim(ordered, start, size)
        candidates = jax.lax.dynamic_slice_in_dim(keep, start, size)
        ahead = keep & (jnp.arange(count + padding) < start)
        candidates &= ~jnp.any((iou(ordered, mine) > threshold) & ahead[:, None], axis=0)
        beats = (iou(mine, mine) > threshold) & (places[:, None] < places) & candidates[:, None]

        def iterate(state: tuple[Array, Array]) -> tuple[Array, Array]:
            kept, _ = state
            new = candidates & ~jnp.any(beats & kept[:, None], axis=0)
            return new, jnp.any(new != kept)

        found, _ = jax.lax.while_loop(lambda state: state[1], iterate, (candidates, jnp.array(True)))
        return jax.lax.dynamic_update_slice_in_dim(keep, found, start, 0)

    blocks = (count + padding) // size
    if blocks == 1:
        keep = decide(jnp.zeros((), jnp.int32), alive)
    else:

        def unfinished(state: tuple[Array, Array]) -> Array:
            block, keep = state
            decided = keep & (jnp.arange(count + padding) < block * size)
            return (block < blocks) & (jnp.sum(decided) < most)

        _, keep = jax.lax.while_loop(
            unfinished, lambda state: (state[0] + 1, decide(*state)), (jnp.zeros((), jnp.int32), alive)
        )
    (found,) = jnp.nonzero(keep[:count], size=most, fill_value=count)
    return Kept(order[jnp.minimum(found, count - 1)], found < count)
