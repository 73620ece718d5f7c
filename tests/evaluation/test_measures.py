"""Errors, calibration and confusion against counts by hand and in plain Python."""

import numpy as np
import pytest

from resnet_jax.evaluation.measures import calibration, confusion, error, loss, ranks


def random_scores(count=200, classes=12, seed=0):
    rng = np.random.default_rng(seed)
    return rng.dirichlet(np.full(classes, 0.3), count), rng.integers(0, classes, count)


def test_errors_are_those_of_sorting():
    scores, labels = random_scores()
    order = np.argsort(-scores, axis=1)
    for guesses in (1, 5):
        right = sum(label in row[:guesses] for label, row in zip(labels, order, strict=True))
        assert error(scores, labels, guesses) == pytest.approx(100 * (1 - right / len(labels)))
    assert loss(scores, labels) == pytest.approx(-np.mean([np.log(s[y]) for s, y in zip(scores, labels, strict=True)]))


def test_ties_go_to_the_lower_class_and_what_is_not_finite_is_wrong():
    scores = np.array([[0.5, 0.5, 0], [0.5, 0.5, 0], [np.nan, 0.4, 0.6]])
    np.testing.assert_array_equal(ranks(scores, np.array([0, 1, 0])), [0, 1, 3])


def test_confusion_counts_every_image_once():
    scores, labels = random_scores()
    found = confusion(scores, labels)
    for label, guess in ((0, 0), (3, 5), (11, 2)):
        assert found[label, guess] == sum(scores[i].argmax() == guess for i in np.flatnonzero(labels == label))
    assert found.sum() == 200
    assert 100 * (1 - np.trace(found) / 200) == pytest.approx(error(scores, labels))


def test_calibration_by_hand():
    """Two bins: 0.4 and 0.5 (a bin holds its upper edge), one right; 0.9 and 1.0, both right."""
    scores = np.array([[0.4, 0.3, 0.3], [0.5, 0.3, 0.2], [0.9, 0.1, 0.0], [1.0, 0.0, 0.0]])
    found = calibration(scores, np.array([0, 1, 0, 0]), bins=2)
    np.testing.assert_array_equal(found.counts, [2, 2])
    np.testing.assert_allclose(found.confidence, [0.45, 0.95])
    np.testing.assert_allclose(found.accuracy, [0.5, 1.0])
    assert found.ece == pytest.approx(100 * (0.5 * 0.05 + 0.5 * 0.05))


def test_calibration_against_its_definition():
    scores, labels = random_scores(500)
    found, total = calibration(scores, labels), 0.0
    for low, high in zip(found.edges[:-1], found.edges[1:], strict=True):
        inside = [i for i in range(500) if low < scores[i].max() <= high]
        if inside:
            confidence = np.mean([scores[i].max() for i in inside])
            total += len(inside) / 500 * abs(np.mean([scores[i].argmax() == labels[i] for i in inside]) - confidence)
    assert found.ece == pytest.approx(100 * total)
    assert found.counts.sum() == 500
