"""Measures of scores: top-1 and top-5 error, loss, confusion and calibration."""

import dataclasses

import numpy as np

#: Bins of confidence (Guo et al. 2017, "On Calibration of Modern Neural Networks", section 5).
BINS = 15


def ranks(scores: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Counts the classes that are ranked ahead of the label, (n,): 0 where the first guess is right.

    Of equal scores the lower class comes first, as in argmax. The rank of a row that is not finite is the number of
    classes.

    Args:
      scores: (n, classes).
      labels: (n,).
    """
    own = scores[np.arange(len(labels)), labels][:, None]
    ahead = (scores > own) | ((scores == own) & (np.arange(scores.shape[1]) < labels[:, None]))
    return np.where(np.isfinite(scores).all(axis=1), ahead.sum(axis=1), scores.shape[1])


def error(scores: np.ndarray, labels: np.ndarray, guesses: int = 1) -> float:
    """Returns the percentage of images whose label is not among the first `guesses`."""
    return 100 * float(np.mean(ranks(scores, labels) >= guesses))


def loss(scores: np.ndarray, labels: np.ndarray) -> float:
    """Returns the mean negative logarithm of the label's score; NaN if a score is."""
    with np.errstate(divide="ignore"):
        return float(-np.mean(np.log(scores[np.arange(len(labels)), labels])))


def confusion(scores: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Counts images by label (rows) and first guess (columns), (classes, classes)."""
    classes = scores.shape[1]
    matrix = np.zeros((classes, classes), np.int64)
    np.add.at(matrix, (labels, np.argmax(scores, axis=1)), 1)
    return matrix


@dataclasses.dataclass(frozen=True)
class Calibration:
    """Compares a net's confidence with its accuracy (Guo et al. 2017, section 2).

    Attributes:
      edges: of the bins of confidence, (bins + 1,); a bin includes its upper edge.
      counts: images in each bin, (bins,).
      confidence, accuracy: means over the images of each bin, as fractions; NaN in an empty bin.
      ece: expected calibration error in percent: the mean of |accuracy - confidence|, weighted by the counts.
    """

    edges: np.ndarray
    counts: np.ndarray
    confidence: np.ndarray
    accuracy: np.ndarray
    ece: float


def calibration(scores: np.ndarray, labels: np.ndarray, bins: int = BINS) -> Calibration:
    """Compares accuracy and confidence, the first guess's score, in bins of equal width.

    Args:
      scores: (n, classes), probabilities.
      labels: (n,).
      bins: their number.
    """
    confidence = np.nan_to_num(scores.max(axis=1))
    right = ranks(scores, labels) == 0
    edges = np.linspace(0, 1, bins + 1)
    which = np.clip(np.ceil(confidence * bins).astype(int) - 1, 0, bins - 1)
    counts = np.bincount(which, minlength=bins)
    with np.errstate(invalid="ignore"):
        mean_confidence = np.bincount(which, confidence, bins) / counts
        accuracy = np.bincount(which, right, bins) / counts
    gaps = np.abs(accuracy - mean_confidence)[counts > 0]
    ece = 100 * float(np.sum(gaps * counts[counts > 0]) / len(labels))
    return Calibration(edges, counts, mean_confidence, accuracy, ece)
