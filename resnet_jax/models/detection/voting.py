"""Box voting (Gidaris and Komodakis 2015, "Object detection via a multi-region CNN", section 4.3)."""

import jax.numpy as jnp
from jax import Array

from resnet_jax.models.detection.boxes import iou


def vote(kept: Array, boxes: Array, scores: Array, threshold: float, same: Array | None = None) -> Array:
    """Returns each kept box as the mean of the boxes around it, weighted by their scores, (n, 4).

    Args:
      kept: (n, 4), boxes that NMS kept.
      boxes: (m, 4), all boxes.
      scores: (m,), theirs; a box with 0 or less does not vote.
      threshold: IoU with the kept box from which on a box votes.
      same: bool (n, m), which boxes are of the class of the kept one; None: all.

    A kept box that nobody votes on stays as it is.
    """
    around = iou(kept, boxes) >= threshold
    weights = jnp.where(around if same is None else around & same, jnp.maximum(scores, 0), 0)
    total = weights.sum(axis=1, keepdims=True)
    means = jnp.matmul(weights, boxes, precision="highest") / jnp.where(total > 0, total, 1)
    return jnp.where(total > 0, means, kept)
