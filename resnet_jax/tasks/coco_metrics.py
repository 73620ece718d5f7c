"""COCO's average precision, measured by COCO's own code, pycocotools."""

import contextlib
import importlib
import importlib.util
import io
from collections.abc import Sequence
from typing import Any

import numpy as np

from resnet_jax.errors import UserError
from resnet_jax.tasks.average_precision import Found, Truth

#: Names of the first six numbers that pycocotools gives.
NAMES = ("ap", "ap50", "ap75", "ap_small", "ap_medium", "ap_large")


def check_installed() -> None:
    """Raises UserError if pycocotools is not there."""
    if importlib.util.find_spec("pycocotools") is None:
        raise UserError("COCO's metrics are measured by pycocotools: python -m pip install -e '.[coco]'")


def coco_metrics(found: Sequence[Found], truth: Sequence[Truth], classes: int) -> dict[str, float]:
    """Returns `NAMES` as fractions; of the last three those that no object is of are left out."""
    check_installed()
    coco = importlib.import_module("pycocotools.coco")
    cocoeval = importlib.import_module("pycocotools.cocoeval")
    annotations: list[dict[str, Any]] = []
    detections: list[dict[str, Any]] = []
    for image, (one, objects) in enumerate(zip(found, truth, strict=True)):
        for box, label, crowd, area in zip(objects.boxes, objects.labels, objects.ignored, objects.areas, strict=True):
            annotations.append(_record(image, box, label) | {"id": len(annotations) + 1, "iscrowd": int(crowd),
                                                              "area": float(area)})  # fmt: skip
        for box, label, score in zip(one.boxes, one.labels, one.scores, strict=True):
            detections.append(_record(image, box, label) | {"score": float(score)})
    with contextlib.redirect_stdout(io.StringIO()):
        reference = coco.COCO()
        reference.dataset = {
            "images": [{"id": image} for image in range(len(truth))], "annotations": annotations,
            "categories": [{"id": label} for label in range(classes)], "info": {},
        }  # fmt: skip
        reference.createIndex()
        results = reference.loadRes(detections) if detections else _without_annotations(reference)
        test = cocoeval.COCOeval(reference, results, "bbox")
        test.evaluate()
        test.accumulate()
        test.summarize()
    measured = {name: float(value) for name, value in zip(NAMES, test.stats, strict=False) if value >= 0}
    return dict.fromkeys(NAMES[:3], 0.0) | measured


def _without_annotations(reference: Any) -> Any:
    """Returns results in which nothing was found, which pycocotools does not load."""
    results = type(reference)()
    results.dataset = reference.dataset | {"annotations": []}
    results.createIndex()
    return results


def _record(image: int, box: np.ndarray, label: int) -> dict[str, Any]:
    x1, y1, x2, y2 = (float(value) for value in box)
    return {"image_id": image, "category_id": int(label), "bbox": [x1, y1, x2 - x1, y2 - y1]}
