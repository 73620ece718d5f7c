"""Binary cross-entropy by its definition, its gradient by hand."""

import jax
import numpy as np
import pytest

from resnet_jax.config import base_config
from resnet_jax.tasks.classification import Classification, binary_cross_entropy

RNG = np.random.default_rng(0)
LOGITS = RNG.normal(size=(6, 5)) * 3
WEIGHTS = RNG.dirichlet(np.ones(5), 6)


def by_definition(logits, targets):
    s = 1 / (1 + np.exp(-logits))
    return -(targets * np.log(s) + (1 - targets) * np.log(1 - s)).mean(axis=1)


def test_binary_cross_entropy_and_its_gradient():
    np.testing.assert_allclose(binary_cross_entropy(LOGITS, WEIGHTS), by_definition(LOGITS, WEIGHTS), rtol=1e-5)
    gradient = jax.grad(lambda x: binary_cross_entropy(x, WEIGHTS).mean())(LOGITS)
    # d/dx = s - t for each class, over all classes and examples.
    np.testing.assert_allclose(gradient, (1 / (1 + np.exp(-LOGITS)) - WEIGHTS) / LOGITS.size, atol=1e-6)


def test_labels_are_one_hot():
    labels = np.array([0, 4, 2, 1, 1, 3])
    np.testing.assert_allclose(binary_cross_entropy(LOGITS, labels), by_definition(LOGITS, np.eye(5)[labels]), 1e-5)
    np.testing.assert_allclose(
        binary_cross_entropy(LOGITS, labels, 0.2), by_definition(LOGITS, np.eye(5)[labels]), 1e-5
    )


def test_threshold_makes_both_images_of_a_mix_count():
    """Wightman et al. 2021, section 3: the classes of a mix are all there, if they are more than a trace."""
    targets = np.array([[0.7, 0.3, 0, 0, 0], [0.85, 0.15, 0, 0, 0], [0.5, 0, 0, 0, 0.5]])
    expected = np.array([[1, 1, 0, 0, 0], [1, 0, 0, 0, 0], [1, 0, 0, 0, 1]])
    found = binary_cross_entropy(LOGITS[:3], targets, 0.2)
    np.testing.assert_allclose(found, by_definition(LOGITS[:3], expected), rtol=1e-5)


def test_large_logits_are_finite():
    assert binary_cross_entropy(np.array([[1e4, -1e4]]), np.array([0])) == 0
    assert binary_cross_entropy(np.array([[1e4, -1e4]]), np.array([1])) == 1e4


def test_the_config_chooses():
    config = base_config()
    task = Classification.from_config(config, 5)
    softmax = np.exp(LOGITS) / np.exp(LOGITS).sum(axis=1, keepdims=True)
    expected = -(WEIGHTS * np.log(softmax)).sum(axis=1)
    np.testing.assert_allclose(task.example_losses(LOGITS, None, WEIGHTS), expected, rtol=1e-5)
    labels = WEIGHTS.argmax(axis=1)
    expected = -np.log(softmax[np.arange(6), labels])
    np.testing.assert_allclose(task.example_losses(LOGITS, None, labels), expected, rtol=1e-5)
    config.loss, config.regularization.target_threshold = "binary_cross_entropy", 0.4
    task = Classification.from_config(config, 5)
    found = task.example_losses(LOGITS, None, WEIGHTS)
    np.testing.assert_allclose(found, by_definition(LOGITS, WEIGHTS > 0.4), rtol=1e-5)


@pytest.mark.parametrize("binary", [False, True])
def test_chance_is_logits_of_zero(binary):
    task = Classification(5, binary=binary)
    assert task.chance_loss == pytest.approx(float(task.example_losses(np.zeros((1, 5)), None, np.array([3]))[0]))
