"""Small nets with random weights, for what only needs some net."""

import jax
import numpy as np

from resnet_jax.interop.weights import Weights
from resnet_jax.models.registry import create_model
from tests.models import reference as ref


def small_weights(name="cifar_resnet20", size=8, channels=3, classes=("cat", "dog", "cow"), mean=None, **fields):
    fields = {"stage_sizes": (1, 1), "widths": (4, 6), "num_classes": len(classes)} | fields
    variables = ref.random_variables(create_model(name, **fields), np.zeros((1, size, size, channels), np.float32))
    mean = np.linspace(0.4, 0.6, channels, dtype=np.float32) if mean is None else mean
    std = np.full(channels, 0.25, np.float32)
    return Weights(name, fields, jax.tree.map(np.asarray, variables), size, mean, std, tuple(classes))
