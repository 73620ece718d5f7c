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


def devkit_overlap(box: np.ndarray, other: np.ndarray) -> float:
    """VOCevaldet.m: pixels are counted from 1, both ends of a box included."""
    width = min(box[2], other[2]) - max(box[0], other[0]) + 1
    height = min(box[3], other[3]) - max(box[1], other[1]) + 1
    if width <= 0 or height <= 0:
        return 0.0
    areas = [(b[2] - b[0] + 1) * (b[3] - b[1] + 1) for b in (box, other)]
    return width * height / (sum(areas) - width * height)


def devkit(found: list[Found], truth: list[Truth], label: int) -> tuple[float, float]:
    """VOCevaldet.m and VOCap.m, line by line, on boxes that count pixels from 1, both ends: AP of 2010 and of 2007."""
    boxes = [np.stack([one.boxes[:, 0] + 1, one.boxes[:, 1] + 1, one.boxes[:, 2], one.boxes[:, 3]], 1) for one in truth]
    positives = sum(((one.labels == label) & ~one.ignored).sum() for one in truth)
    detected = [np.zeros(len(one.labels), bool) for one in truth]
    ranked = sorted(((one.scores[k], i, k) for i, one in enumerate(found) for k in np.flatnonzero(one.labels == label)),
                    key=lambda one: -one[0])  # fmt: skip
    right, wrong = np.zeros(len(ranked)), np.zeros(len(ranked))
    for d, (_, i, k) in enumerate(ranked):
        box = found[i].boxes[k] + np.array([1, 1, 0, 0])
        most, which = -np.inf, -1
        for j in np.flatnonzero(truth[i].labels == label):
            if (overlap := devkit_overlap(box, boxes[i][j])) > most:
                most, which = overlap, j
        if most >= 0.5:
            if not truth[i].ignored[which]:
                (wrong if detected[i][which] else right)[d] = 1
                detected[i][which] = True
        else:
            wrong[d] = 1
    recall = np.cumsum(right) / positives
    precision = np.cumsum(right) / np.maximum(np.cumsum(right) + np.cumsum(wrong), 1e-12)
    mrec, mpre = [0.0, *recall, 1.0], [0.0, *precision, 0.0]
    for i in range(len(mpre) - 2, -1, -1):
        mpre[i] = max(mpre[i], mpre[i + 1])
    area = sum((mrec[i] - mrec[i - 1]) * mpre[i] for i in range(1, len(mrec)) if mrec[i] != mrec[i - 1])
    points = [max((p for r, p in zip(recall, precision, strict=True) if r >= t - 1e-9), default=0) for t in
              np.linspace(0, 1, 11)]  # fmt: skip
    return area, sum(points) / 11


@pytest.mark.parametrize("seed", range(8))
def test_the_devkit_by_its_code(seed: int) -> None:
    """Boxes of whole pixels, of which some are exactly one half of an object; some objects are difficult."""
    rng = np.random.default_rng(seed)
    found, truth = made(seed + 100, images=12)
    whole = [one._replace(boxes=one.boxes.round()) for one in truth]
    halves = []
    for one, objects in zip(found, whole, strict=True):
        boxes = one.boxes.round()
        for k in range(min(len(boxes), len(objects.boxes))):
            if rng.random() < 0.3:
                x1, y1, x2, y2 = objects.boxes[k]
                boxes[k] = x1, y1, x2 - (x2 - x1) // 2, y2
        boxes[:, 2:] = np.maximum(boxes[:, 2:], boxes[:, :2] + 1)
        halves.append(one._replace(boxes=boxes))
    for label in (0, 1):
        curve = precision_recall(halves, whole, label)
        assert curve.objects
        assert (area_under(curve), eleven_points(curve)) == pytest.approx(devkit(halves, whole, label), abs=1e-9)


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


def coco_by_definition(found: list[Found], truth: list[Truth], threshold: float) -> float:
    """COCO's AP at one IoU: each detection, the best first, has the object that it overlaps most of those left; one
    that has none, but lies in a crowd, does not count; precision at 101 recalls, averaged over classes."""
    values = []
    for label in (0, 1):
        events = []
        positives = 0
        for one, objects in zip(found, truth, strict=True):
            mine = objects.labels == label
            boxes, crowd = objects.boxes[mine], objects.ignored[mine]
            positives += int((~crowd).sum())
            left = [k for k in range(len(boxes)) if not crowd[k]]
            own = np.flatnonzero(one.labels == label)
            for k in own[np.argsort(-one.scores[own], kind="stable")]:
                overlaps = {j: iou(one.boxes[k], boxes[j]) for j in left}
                best = max(overlaps, key=lambda j: overlaps[j], default=None)
                if best is not None and overlaps[best] >= threshold:
                    left.remove(best)
                    events.append((one.scores[k], True))
                elif not any(inside(one.boxes[k], boxes[j]) >= threshold for j in np.flatnonzero(crowd)):
                    events.append((one.scores[k], False))
        events.sort(key=lambda event: -event[0])
        right = np.cumsum([hit for _, hit in events])
        recall, precision = right / positives, right / np.arange(1, len(events) + 1)
        points = np.linspace(0, 1, 101)
        values.append(np.mean([max((p for r, p in zip(recall, precision, strict=True) if r >= t), default=0)
                               for t in points]))  # fmt: skip
    return float(np.mean(values))


def inside(box: np.ndarray, crowd: np.ndarray) -> float:
    """The share of a box that lies in a crowd, which is COCO's overlap with it."""
    sides = np.minimum(box[2:], crowd[2:]) - np.maximum(box[:2], crowd[:2])
    return float(np.prod(np.maximum(sides, 0)) / np.prod(box[2:] - box[:2]))


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("threshold", [0.5, 0.75])
def test_curves_of_cocos_classes_are_of_its_matches(seed: int, threshold: float) -> None:
    """With crowds, in which what is found counts neither way: at COCO's 101 recalls each has COCO's precision."""
    found, truth = made(seed, images=20)
    values = []
    for label in (0, 1):
        curve = precision_recall(found, truth, label, threshold, coco=True)
        best = [curve.precision[curve.recall >= point].max(initial=0) for point in np.linspace(0, 1, 101)]
        values.append(np.mean(best))
    assert np.mean(values) == pytest.approx(coco_by_definition(found, truth, threshold), abs=1e-9)


@pytest.mark.skipif(importlib.util.find_spec("pycocotools") is None, reason="pycocotools is not installed")
@pytest.mark.parametrize("seed", range(4))
def test_coco_against_the_definition(seed: int) -> None:
    """AP, AP50 and AP75 with crowds, in which what is found counts neither way, several times as well."""
    found, truth = made(seed, images=20)
    measured = coco_metrics(found, truth, 2)
    for name, threshold in (("ap50", 0.5), ("ap75", 0.75)):
        assert measured[name] == pytest.approx(coco_by_definition(found, truth, threshold), abs=1e-6)
    every = [coco_by_definition(found, truth, threshold) for threshold in np.arange(50, 100, 5) / 100]
    assert measured["ap"] == pytest.approx(np.mean(every), abs=1e-6)


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


@pytest.mark.skipif(importlib.util.find_spec("pycocotools") is None, reason="pycocotools is not installed")
def test_coco_of_nothing() -> None:
    """Sizes that no object has are left out whatever is found; AP50, by which runs are chosen, is always there."""
    nothing = Found(np.zeros((0, 4)), np.zeros(0), np.zeros(0, int))
    one = Found(np.array([[0.0, 0, 5, 5]]), np.array([0.9]), np.array([0]))
    small = Truth(one.boxes, one.labels, np.zeros(1, bool), np.array([25.0]))
    empty = Truth(nothing.boxes, nothing.labels, np.zeros(0, bool), np.zeros(0))
    kinds = ("ap", "ap50", "ap75")
    assert coco_metrics([nothing], [small], 2) == dict.fromkeys((*kinds, "ap_small"), 0)
    assert coco_metrics([one], [small], 2) == pytest.approx(dict.fromkeys((*kinds, "ap_small"), 1))
    for found in (one, nothing):
        assert coco_metrics([found], [empty], 2) == dict.fromkeys(kinds, 0)
