"""What the operations of detectors are by definition: plain NumPy, one box at a time."""

import math

import numpy as np


def random_boxes(rng: np.random.Generator, count: int, side: float = 60.0, degenerate: bool = True) -> np.ndarray:
    """Boxes in an image of `side` pixels; some are equal, without width, or as large as the image."""
    corners = rng.uniform(0, side, (count, 2, 2)).astype(np.float32)
    boxes = np.concatenate([corners.min(axis=1), corners.max(axis=1)], axis=1)
    if degenerate and count > 8:
        boxes[1] = boxes[0]
        boxes[2, 2] = boxes[2, 0]
        boxes[3] = boxes[3, [0, 1, 0, 1]]
        boxes[4] = (0, 0, side, side)
        boxes[5] = boxes[4]
        boxes[6] = boxes[2]
    return boxes


def iou(a: np.ndarray, b: np.ndarray) -> float:
    width = max(0.0, min(a[2], b[2]) - max(a[0], b[0]))
    height = max(0.0, min(a[3], b[3]) - max(a[1], b[1]))
    union = (a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - width * height
    return width * height / union if union > 0 else 0.0


def greedy_nms(boxes: np.ndarray, scores: np.ndarray, threshold: float) -> list[int]:
    kept: list[int] = []
    for i in np.argsort(-scores, kind="stable"):
        if all(iou(boxes[j], boxes[i]) <= threshold for j in kept):
            kept.append(int(i))
    return kept


def bilinear(features: np.ndarray, y: float, x: float) -> np.ndarray:
    height, width, channels = features.shape
    if not (-1 <= y <= height and -1 <= x <= width):
        return np.zeros(channels)
    y, x = min(max(y, 0), height - 1), min(max(x, 0), width - 1)
    top, left = int(y), int(x)
    bottom, right = min(top + 1, height - 1), min(left + 1, width - 1)
    dy, dx = y - top, x - left
    upper = (1 - dx) * features[top, left] + dx * features[top, right]
    lower = (1 - dx) * features[bottom, left] + dx * features[bottom, right]
    return (1 - dy) * upper + dy * lower


def roi_align(
    features: np.ndarray, box: np.ndarray, size: int, scale: float, samples: int, aligned: bool
) -> np.ndarray:
    x1, y1, x2, y2 = box * scale - (0.5 if aligned else 0)
    width, height = x2 - x1, y2 - y1
    if not aligned:
        width, height = max(width, 1), max(height, 1)
    out = np.zeros((size, size, features.shape[-1]))
    for p in range(size):
        for q in range(size):
            for i in range(samples):
                for j in range(samples):
                    y = y1 + (p + (i + 0.5) / samples) * height / size
                    x = x1 + (q + (j + 0.5) / samples) * width / size
                    out[p, q] += bilinear(features, y, x) / samples**2
    return out


def roi_max_pool(features: np.ndarray, box: np.ndarray, size: int, scale: float) -> np.ndarray:
    x1, y1 = (math.floor(v * scale + 0.5) for v in box[:2])
    x2, y2 = (math.floor((v - 1) * scale + 0.5) for v in box[2:])
    width, height = max(x2 - x1 + 1, 1), max(y2 - y1 + 1, 1)
    out = np.zeros((size, size, features.shape[-1]))
    for p in range(size):
        for q in range(size):
            top, bottom = y1 + p * height // size, y1 + -(-(p + 1) * height // size)
            left, right = x1 + q * width // size, x1 + -(-(q + 1) * width // size)
            part = features[max(top, 0) : max(bottom, 0), max(left, 0) : max(right, 0)]
            if part.size:
                out[p, q] = part.max(axis=(0, 1))
    return out
