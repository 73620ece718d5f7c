"""PASCAL VOC's average precision against an independent computation, and COCO's through pycocotools."""

import importlib.util

import numpy as np
import pytest

from resnet_jax.tasks.average_precision import Found, Truth, area_under, eleven_points, precision_recall
from resnet_jax.tasks.coco_metrics import coco_metrics
from tests.models.detection.definitions import iou


def made(seed: int, images: int = 6) -> tuple[list[Found], list[Truth]]:
    """Objects, some difficult, and detections: shifted objects, several of some, and boxes anywhere; scores differ."""
    rng = np.random.default_rng(seed)
    found, truth = [], []
    for _ in range(images):
        count = int(rng.integers(0, 6))
        corners = rng.uniform(0, 60, (count, 2))
        boxes = np.concatenate([corners, corners + rng.uniform(8, 30, (count, 2))], axis=1)
        labels, ignored = rng.integers(0, 2, count), rng.random(count) < 0.3
        truth.append(Truth(boxes, labels, ignored, np.prod(boxes[:, 2:] - boxes[:, :2], axis=1)))
        near = np.repeat(np.arange(count), rng.integers(0, 3, count))
        shifted = boxes[near] + rng.normal(0, 3, (len(near), 4))
        wild = np.sort(rng.uniform(0, 60, (3, 2, 2)), axis=1).reshape(3, 4)
        every = np.concatenate([shifted, wild])
        every[:, 2:] = np.maximum(every[:, 2:], every[:, :2] + 1)
        found.append(Found(every, rng.random(len(every)), np.concatenate([labels[near], rng.integers(0, 2, 3)])))
    return found, truth


def independent(found: list[Found], truth: list[Truth], label: int, threshold: float) -> tuple[float, float]:
    """Area and 11 points by the definition: for every number of detections, who is right is decided anew."""
    ranked = sorted(
        (-one.scores[k], image, one.boxes[k]) for image, one in enumerate(found)
        for k in range(len(one.scores)) if one.labels[k] == label
    )  # fmt: skip
    objects = [(i, box, bool(d)) for i, one in enumerate(truth)
               for box, lab, d in zip(one.boxes, one.labels, one.ignored, strict=True) if lab == label]  # fmt: skip
    positives = sum(not d for *_, d in objects)
    points = []
    for count in range(1, len(ranked) + 1):
        owners: dict[int, int] = {}
        right = wrong = 0
        for rank, (_, image, box) in enumerate(ranked[:count]):
            overlaps = {n: iou(box, other) for n, (i, other, _) in enumerate(objects) if i == image}
            best = max(overlaps, key=lambda n: overlaps[n], default=None)
            if best is None or overlaps[best] < threshold:
                wrong += 1
            elif not objects[best][2]:
                right += owners.setdefault(best, rank) == rank
                wrong += owners[best] != rank
        if right + wrong:
            points.append((right / positives, right / (right + wrong)))

    def best_from(recall: float) -> float:
        return max((p for r, p in points if r >= recall), default=0.0)

    recalls = sorted({r for r, _ in points})
    area = sum((r - before) * best_from(r) for before, r in zip([0.0, *recalls], recalls, strict=False))
    return area, sum(best_from(i / 10 - 1e-12) for i in range(11)) / 11


@pytest.mark.parametrize("seed", range(12))
@pytest.mark.parametrize("threshold", [0.3, 0.5, 0.75])
def test_voc(seed: int, threshold: float) -> None:
    found, truth = made(seed)
    for label in (0, 1):
        curve = precision_recall(found, truth, label, threshold)
        if curve.objects:
            expected = independent(found, truth, label, threshold)
            assert (area_under(curve), eleven_points(curve)) == pytest.approx(expected, abs=1e-9)


def test_difficult_objects_count_neither_way() -> None:
    """As in the devkit: a difficult object is no miss, and whatever finds it is no mistake, twice as well."""
    boxes = np.array([[0.0, 0, 10, 10], [20, 20, 30, 30]])
    truth = [Truth(boxes, np.zeros(2, int), np.array([False, True]), np.full(2, 100.0))]
    found = [Found(boxes[[1, 1, 0, 0]], np.array([0.9, 0.8, 0.7, 0.6]), np.zeros(4, int))]
    curve = precision_recall(found, truth, 0)
    assert curve.objects == 1 and curve.recall.tolist() == [0, 0, 1, 1] and curve.precision.tolist() == [0, 0, 1, 0.5]
    assert area_under(curve) == 1
    nothing = precision_recall([Found(np.zeros((0, 4)), np.zeros(0), np.zeros(0, int))], truth, 0)
    assert area_under(nothing) == 0 == eleven_points(nothing)


@pytest.mark.skipif(importlib.util.find_spec("pycocotools") is None, reason="pycocotools is not installed")
def test_coco() -> None:
    """What is found exactly has an AP of 1; of shifted boxes AP50 is near VOC's, which has other points of recall."""
    _, truth = made(3)
    exact = [Found(one.boxes, np.linspace(1, 0.5, len(one.labels)), one.labels) for one in truth]
    assert coco_metrics(exact, truth, 2)["ap"] == pytest.approx(1)
    found, truth = made(5, images=40)
    crowds = [one._replace(ignored=np.zeros(len(one.labels), bool)) for one in truth]
    measured = coco_metrics(found, crowds, 2)
    ours = np.mean([area_under(precision_recall(found, crowds, label)) for label in (0, 1)])
    assert measured["ap50"] == pytest.approx(ours, abs=0.02) and 0 < measured["ap"] < measured["ap50"] < 1
    assert coco_metrics([f._replace(boxes=f.boxes[:0], scores=f.scores[:0], labels=f.labels[:0]) for f in found],
                        crowds, 2)["ap"] == 0  # fmt: skip
