"""What training makes small."""

import math
from collections.abc import Callable
from functools import partial

import jax.numpy as jnp
import optax
from jax import Array
from ml_collections import ConfigDict

#: (logits, labels) to the loss of each example, (batch,).
Loss = Callable[[Array, Array], Array]


def cross_entropy(logits: Array, labels: Array) -> Array:
    """Softmax cross-entropy of each example, (batch,). Labels are (batch,), or soft: (batch, classes)."""
    if labels.ndim == 2:
        return optax.softmax_cross_entropy(logits, labels)
    return optax.softmax_cross_entropy_with_integer_labels(logits, labels)


def binary_cross_entropy(logits: Array, labels: Array, threshold: float = 0.0) -> Array:
    """Each class against the rest: -t log s - (1 - t) log (1 - s), s the sigmoid, the mean of all classes, (batch,).

    The mean, as in timm, and not the sum: Adam's epsilon sees the gradient's size (Wightman et al. 2021, section 3).

    Args:
      logits: (batch, classes).
      labels: (batch,), or soft: (batch, classes).
      threshold: soft labels above it are 1 and others 0; 0: they stay as they are.
    """
    if labels.ndim == 1:
        labels = jnp.arange(logits.shape[-1]) == labels[:, None]
    elif threshold:
        labels = labels > threshold
    return optax.sigmoid_binary_cross_entropy(logits, labels.astype(logits.dtype)).mean(axis=-1)


def make_loss(config: ConfigDict) -> Loss:
    """The loss that a config names."""
    if config.loss == "binary_cross_entropy":
        return partial(binary_cross_entropy, threshold=config.regularization.target_threshold)
    return cross_entropy


def guessing_loss(name: str, classes: int) -> float:
    """What a net that knows nothing has: all classes alike, or logits of 0."""
    return math.log(2 if name == "binary_cross_entropy" else classes)
