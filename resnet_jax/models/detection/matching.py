"""Which anchors and regions are positive, which are negative, and which of them a step is trained on."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

#: What `match` says of a box that has no object: it is background, or neither that nor an object.
NEGATIVE, NEITHER = -1, -2


def match(
    overlaps: Array, objects: Array, positive: float, negative: float, lowest: float = 0.0, best: bool = False
) -> Array:
    """Returns the object of each box, int32 (boxes,), or `NEGATIVE` or `NEITHER`.

    A box belongs to the object that it overlaps most if that is `positive` or more. It is negative if it overlaps each
    by less than `negative`, and the most by `lowest` or more.

    Args:
      overlaps: (boxes, objects), intersections over union.
      objects: bool (objects,), which of them there are.
      positive, negative, lowest: thresholds.
      best: whether each object also has the boxes that overlap it most, however little, so that none goes without
        (Ren et al. 2015, section 3.1.2). Such a box belongs to the object that it overlaps most itself.
    """
    overlaps = jnp.where(objects, overlaps, -1)
    most, nearest = jnp.max(overlaps, axis=1), jnp.argmax(overlaps, axis=1).astype(jnp.int32)
    most = jnp.maximum(most, 0)
    found = most >= positive
    if best:
        highest = jnp.max(overlaps, axis=0)
        found |= jnp.any((overlaps == highest) & (highest > 0) & objects, axis=1)
    background = (most < negative) & (most >= lowest)
    return jnp.where(found & jnp.any(objects), nearest, jnp.where(background, NEGATIVE, NEITHER))


class Sample(NamedTuple):
    """Holds a sample: indices int32 (count,), and which entries are any, and which are positive, bool (count,)."""

    indices: Array
    valid: Array
    positive: Array


def sample(key: Array, matches: Array, count: int, share: float) -> Sample:
    """Draws `count` boxes, of which at most `share` are positive and the others negative; positives come first.

    Without enough negatives the sample is smaller: some of its entries are not valid.

    Args:
      key: a random key, which determines the sample.
      matches: of `match`, (boxes,).
      count, share: see above.
    """
    noise = jax.random.uniform(key, matches.shape)
    most = min(max(1, int(count * share)), len(matches))
    positives = _draw(jnp.where(matches >= 0, noise, -1), most)
    negatives = _draw(jnp.where(matches == NEGATIVE, noise, -1), min(count, len(matches)))
    wanted = count - jnp.sum(positives.valid)
    there = jnp.concatenate([positives.valid, negatives.valid & (jnp.arange(len(negatives.valid)) < wanted)])
    indices = jnp.concatenate([positives.indices, negatives.indices])
    order = jnp.argsort(~there, stable=True)[:count]
    order = jnp.pad(order, (0, max(0, count - len(order))))  # fewer boxes than `count`
    valid = jnp.arange(count) < jnp.sum(there)
    return Sample(indices[order], valid, valid & (order < most))


class _Drawn(NamedTuple):
    indices: Array
    valid: Array


def _draw(noise: Array, most: int) -> _Drawn:
    values, indices = jax.lax.top_k(noise, most)
    return _Drawn(indices, values >= 0)
