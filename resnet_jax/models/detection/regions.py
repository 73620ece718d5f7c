"""From scores and shifts of anchors to proposals, from regions to detections, and what each is trained on."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from resnet_jax.models.detection.boxes import area, clip, decode, encode, intersection, iou
from resnet_jax.models.detection.matching import NEGATIVE, NEITHER, match, sample
from resnet_jax.models.detection.nms import nms
from resnet_jax.models.detection.voting import vote

#: Deviations of a region's shifts and scales, by which targets are divided (py-faster-rcnn).
DEVIATIONS = (0.1, 0.1, 0.2, 0.2)

#: Share of a box inside a crowd from which on it counts as neither object nor background.
IN_CROWD = 0.7


class Boxes(NamedTuple):
    """Holds boxes (n, 4), and which of them there are, bool (n,)."""

    boxes: Array
    valid: Array


class Objects(NamedTuple):
    """Holds what an image shows, padded.

    Attributes:
      boxes: (n, 4), in pixels of the image as the net sees it.
      labels: int32 (n,), from 0.
      valid: bool (n,), objects to be found.
      crowd: bool (n,), regions with several objects, in which nothing is background; None: there are no such.
    """

    boxes: Array
    labels: Array
    valid: Array
    crowd: Array | None


class Trained(NamedTuple):
    """Holds the boxes of an image that a step is trained on.

    Attributes:
      indices: int32 (n,), which of the candidates they are.
      valid: bool (n,), which entries are any.
      labels: int32 (n,), 0 for background, 1 + label for objects.
      targets: (n, 4), what regression is to predict; 0 for background.
    """

    indices: Array
    valid: Array
    labels: Array
    targets: Array


class Predictions(NamedTuple):
    """Holds what is predicted of the regions of an image.

    Attributes:
      boxes: (n, classes, 4), the box of each class, within the image.
      scores: (n, classes), probabilities, that of the background left out.
      valid: bool (n,), which regions are any.
    """

    boxes: Array
    scores: Array
    valid: Array


class Detections(NamedTuple):
    """Holds what was found in an image, the best first.

    Attributes:
      boxes: (n, 4), in pixels of the image as the net sees it.
      scores: (n,), from 0 to 1.
      labels: int32 (n,), from 0.
      valid: bool (n,), which entries are any.
    """

    boxes: Any  # JAX's arrays, or NumPy's on the host
    scores: Any
    labels: Any
    valid: Any


def propose(anchors: Sequence[Array], logits: Sequence[Array], deltas: Sequence[Array], size: Array, *, before: int,
            after: int, threshold: float, smallest: float) -> Boxes:  # fmt: skip
    """Returns up to `after` proposals of an image (Ren et al. 2015, section 3.3), the best first.

    With several levels of features, each has its own candidates and its own NMS (Lin et al. 2017, section 4.1, as in
    Detectron); then the best of all are taken.

    Args:
      anchors: of each level, (n, 4).
      logits: of each level, (n,), of each anchor being an object.
      deltas: of each level, (n, 4), its regression.
      size: (height, width) of the image without its padding.
      before: number of the best anchors of a level that are looked at.
      after: number of proposals.
      threshold: of NMS among them.
      smallest: side in pixels below which a proposal is dropped.
    """
    candidates, scores = [], []
    for of_level, level_logits, level_deltas in zip(anchors, logits, deltas, strict=True):
        best, order = jax.lax.top_k(level_logits, min(before, len(of_level)))
        candidates.append(decode(level_deltas[order], of_level[order]))
        scores.append(best)
    boxes = clip(jnp.concatenate(candidates), size)
    levels = jnp.concatenate([jnp.full(len(best), level, jnp.int32) for level, best in enumerate(scores)])
    valid = jnp.all(boxes[:, 2:] - boxes[:, :2] >= smallest, axis=-1)
    kept = nms(boxes, jnp.concatenate(scores), threshold, after, valid, levels)
    return Boxes(boxes[kept.indices] * kept.valid[:, None], kept.valid)


def train_anchors(key: Array, anchors: Array, size: Array, objects: Objects, *, count: int, inside: bool) -> Trained:
    """Draws the anchors that a step is trained on: IoU 0.7 and more is an object, below 0.3 background.

    Args:
      key: determines the draw.
      anchors: (n, 4).
      size: (height, width) of the image without its padding.
      objects: of the image.
      count: number of anchors, of which at most half are objects.
      inside: whether anchors that cross the border are left out.
    """
    most = jnp.stack([size[1], size[0]]).astype(anchors.dtype)
    usable = jnp.all((anchors[:, :2] >= 0) & (anchors[:, 2:] <= most), axis=-1) if inside else jnp.ones(
        len(anchors), bool)  # fmt: skip
    # Those that are left out must not be an object's best.
    overlaps = jnp.where(usable[:, None], iou(anchors, objects.boxes), 0)
    matches = match(overlaps, objects.valid, 0.7, 0.3, best=True)
    matches = jnp.where(usable, _not_in_crowds(matches, anchors, objects), NEITHER)
    return _draw(key, matches, anchors, objects, count, 0.5, (1, 1, 1, 1))


def train_regions(key: Array, proposals: Boxes, objects: Objects, *, count: int, share: float, lowest: float = 0.0
                  ) -> tuple[Array, Trained]:  # fmt: skip
    """Draws the regions that a step is trained on, from the proposals and the objects themselves.

    Args:
      key: determines the draw.
      proposals: of the image.
      objects: of the image.
      count: number of regions.
      share: of them that are objects, at most: those with an IoU of 0.5 or more.
      lowest: IoU from which on a region is background.

    Returns:
      The regions (count, 4), and what they are trained on.
    """
    boxes = jnp.concatenate([proposals.boxes, objects.boxes])
    there = jnp.concatenate([proposals.valid, objects.valid])
    matches = match(iou(boxes, objects.boxes), objects.valid, 0.5, 0.5, lowest)
    matches = jnp.where(there, _not_in_crowds(matches, boxes, objects), NEITHER)
    trained = _draw(key, matches, boxes, objects, count, share, DEVIATIONS)
    return boxes[trained.indices], trained


def predict(regions: Boxes, logits: Array, deltas: Array, size: Array) -> Predictions:
    """Returns what is predicted of the regions of an image.

    Args:
      regions: (n, 4).
      logits: (n, 1 + classes), background first.
      deltas: (n, 1 + classes, 4).
      size: (height, width) of the image without its padding.
    """
    boxes = clip(decode(deltas[:, 1:], regions.boxes[:, None], DEVIATIONS), size)
    return Predictions(boxes, jax.nn.softmax(logits)[:, 1:], regions.valid)


def select(predictions: Predictions, *, threshold: float, least: float, most: int, voting: float | None = None
           ) -> Detections:  # fmt: skip
    """Returns the detections of an image: NMS in each class by itself, then the best of all classes.

    Args:
      predictions: of its regions.
      threshold: of NMS.
      least: score that a detection has at least.
      most: number of detections.
      voting: IoU of boxes that vote on a box that is kept, see `voting.vote`; None: there is no voting.
    """
    n, classes = predictions.scores.shape
    boxes = predictions.boxes.swapaxes(0, 1).reshape(-1, 4)  # class by class
    scores = predictions.scores.T.ravel()
    valid = jnp.tile(predictions.valid, classes) & (scores >= least) & (area(boxes) > 0)
    labels = jnp.repeat(jnp.arange(classes, dtype=jnp.int32), n)
    kept = nms(boxes, scores, threshold, min(most, len(boxes)), valid, labels)
    there, found = kept.valid, boxes[kept.indices]
    if voting is not None:
        found = vote(found, boxes, scores * valid, voting, labels[kept.indices][:, None] == labels)
    return Detections(found * there[:, None], scores[kept.indices] * there, labels[kept.indices] * there, there)


def _not_in_crowds(matches: Array, boxes: Array, objects: Objects) -> Array:
    if objects.crowd is None:
        return matches
    inside = jnp.where(objects.crowd, intersection(boxes, objects.boxes), 0).max(axis=1, initial=0)
    return jnp.where((matches == NEGATIVE) & (inside > IN_CROWD * area(boxes)), NEITHER, matches)


def _draw(key: Array, matches: Array, boxes: Array, objects: Objects, count: int, share: float,
          deviations: tuple[float, ...]) -> Trained:  # fmt: skip
    drawn = sample(key, matches, count, share)
    owner = jnp.maximum(matches[drawn.indices], 0)
    targets = encode(objects.boxes[owner], boxes[drawn.indices], deviations)
    labels = jnp.where(drawn.positive, 1 + objects.labels[owner], 0)
    return Trained(drawn.indices, drawn.valid, labels, jnp.where(drawn.positive[:, None], targets, 0))
