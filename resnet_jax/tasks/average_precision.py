"""Average precision as PASCAL VOC's devkit measures it."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np


class Found(NamedTuple):
    """Holds an image's detections: boxes (n, 4), scores (n,), labels (n,)."""

    boxes: np.ndarray
    scores: np.ndarray
    labels: np.ndarray


class Truth(NamedTuple):
    """Holds an image's objects: boxes (n, 4), labels (n,), whether they are difficult or crowds, areas (n,)."""

    boxes: np.ndarray
    labels: np.ndarray
    ignored: np.ndarray
    areas: np.ndarray


class Curve(NamedTuple):
    """Holds recall and precision behind each detection, the best first, (n,), and the number of objects."""

    recall: np.ndarray
    precision: np.ndarray
    objects: int


def precision_recall(found: Sequence[Found], truth: Sequence[Truth], label: int, threshold: float = 0.5,
                     coco: bool = False) -> Curve:  # fmt: skip
    """Returns the curve of one class over all images, as `VOCevaldet.m` of the devkit.

    Each detection, the best first, belongs to the object of its class that it overlaps most. With an IoU of `threshold`
    or more it is right if no better detection has that object, and wrong otherwise. Of a difficult object neither it
    nor its detections count.

    Args:
      found, truth: of each image.
      label: the class.
      threshold: of the IoU.
      coco: whether detections are matched as by pycocotools: each with the object that it overlaps most, of those that
        no better one has. Ignored boxes are crowds: a detection without an object does not count if a share of
        `threshold` of it lies in one.
    """
    objects = [one.labels == label for one in truth]
    count = sum(int((chosen & ~one.ignored).sum()) for one, chosen in zip(truth, objects, strict=True))
    of_class = [np.flatnonzero(one.labels == label) for one in found]
    images = np.repeat(np.arange(len(found)), [len(chosen) for chosen in of_class])
    places = np.concatenate([np.zeros(0, np.int64), *of_class])
    scores = np.concatenate([np.zeros(0), *(one.scores[chosen] for one, chosen in zip(found, of_class, strict=True))])
    taken = [np.zeros(len(one.labels), bool) for one in truth]
    right, wrong = np.zeros(len(places)), np.zeros(len(places))
    for rank, one in enumerate(np.argsort(-scores, kind="stable")):
        image = int(images[one])
        box, ignored = found[image].boxes[places[one]], truth[image].ignored
        there = objects[image] & ~ignored & ~taken[image] if coco else objects[image]
        overlaps = np.where(there, _overlaps(box, truth[image].boxes), -1.0)
        best = int(np.argmax(overlaps)) if len(overlaps) else -1
        if best >= 0 and overlaps[best] >= threshold and not taken[image][best]:
            right[rank] = not ignored[best]
            taken[image][best] = not ignored[best]
        elif not coco or _share(box, truth[image].boxes[objects[image] & ignored]) < threshold:
            wrong[rank] = 1
    right, wrong = np.cumsum(right), np.cumsum(wrong)
    return Curve(right / max(count, 1), right / np.maximum(right + wrong, 1e-9), count)


def area_under(curve: Curve) -> float:
    """Returns the area under the curve, its precision made falling, as in the challenges from 2010 on."""
    recall = np.concatenate([[0.0], curve.recall, [1.0]])
    precision = np.concatenate([[0.0], curve.precision, [0.0]])
    return float(np.sum(np.diff(recall) * falling(precision)[1:]))


def falling(precision: np.ndarray) -> np.ndarray:
    """Returns the best precision at each recall or beyond it."""
    return np.maximum.accumulate(precision[::-1])[::-1]


def eleven_points(curve: Curve) -> float:
    """Returns the mean of the best precision at recalls from 0, 0.1, ... 1.0 on, as in 2007."""
    # Rounded as a recall of the same fraction is: 0.6, and not 0.6000000000000001.
    points = np.arange(11) / 10
    best = [curve.precision[curve.recall >= point].max(initial=0.0) for point in points]
    return float(np.mean(best))


def _overlaps(box: np.ndarray, boxes: np.ndarray) -> np.ndarray:
    common = _common(box, boxes)
    areas = np.prod(boxes[:, 2:] - boxes[:, :2], axis=1) + np.prod(box[2:] - box[:2])
    return common / np.maximum(areas - common, 1e-9)


def _share(box: np.ndarray, crowds: np.ndarray) -> float:
    """Returns the largest share of a box that lies in a crowd, as pycocotools measures it; 0 without crowds."""
    return float(_common(box, crowds).max(initial=0) / max(float(np.prod(box[2:] - box[:2])), 1e-9))


def _common(box: np.ndarray, boxes: np.ndarray) -> np.ndarray:
    sides = np.maximum(np.minimum(box[2:], boxes[:, 2:]) - np.maximum(box[:2], boxes[:, :2]), 0)
    return np.asarray(sides.prod(axis=1))
