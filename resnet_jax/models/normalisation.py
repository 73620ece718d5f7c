"""The formulas of batch normalisation.

They are XLA's to compute everywhere but in training on a CPU, where `resnet_jax.kernels` have them: XLA takes a pass
over memory for each sum of a batch there, and several more for a gradient.
"""

from functools import partial

import jax
import jax.numpy as jnp
from flax.typing import Dtype
from jax import Array

from resnet_jax.kernels import batch_norm as compiled
from resnet_jax.kernels.batch_norm import Normalised
from resnet_jax.models.custom_gradient import with_gradient


def normalise(
    x: Array, mean: Array, var: Array, scale: Array, bias: Array, epsilon: float, dtype: Dtype = jnp.float32
) -> Array:
    """(x - mean) / sqrt(var + epsilon) * scale + bias, in float32, given in `dtype`."""
    multiplier = scale / jnp.sqrt(var + epsilon)
    return ((x.astype(jnp.float32) - mean) * multiplier + bias).astype(dtype)


def normalise_groups(
    grouped: Array, scale: Array, bias: Array, epsilon: float, dtype: Dtype = jnp.float32, relu: bool = False
) -> Normalised:
    """Normalises groups of examples, each by its own mean and variance (Ioffe and Szegedy 2015, algorithm 1).

    Args:
      grouped: (groups, examples, ..., channels).
      scale: (channels,), gamma there.
      bias: (channels,), beta there.
      epsilon: added to the variance.
      dtype: of the outputs.
      relu: whether a ReLU follows.

    Returns:
      Outputs, shaped like `grouped`; each group's means and biased variances, float32, which broadcast to that.
    """
    plain = partial(_plain, epsilon=epsilon, dtype=dtype, relu=relu)
    if jnp.dtype(dtype) != jnp.float32 or not compiled.takes(grouped, scale, bias):
        return plain(grouped, scale, bias)

    flat = grouped.reshape(grouped.shape[0], -1, grouped.shape[-1])
    forward = partial(compiled.batch_norm, epsilon=epsilon, relu=relu)

    def gradient(args: tuple[Array, ...], outputs: Normalised, cotangents: Normalised) -> tuple[Array, ...]:
        x, scale, bias = args
        _, mean, var = outputs
        return compiled.gradients(x, scale, bias, mean, var, cotangents, epsilon, relu)

    def squeezed(*args: Array) -> Normalised:
        y, mean, var = plain(*args)
        return y, jnp.squeeze(mean, 1), jnp.squeeze(var, 1)

    y, mean, var = with_gradient(squeezed, forward, gradient)(flat, scale, bias)
    broadcasting = (grouped.shape[0], *[1] * (grouped.ndim - 2), grouped.shape[-1])
    return y.reshape(grouped.shape), mean.reshape(broadcasting), var.reshape(broadcasting)


def _plain(grouped: Array, scale: Array, bias: Array, *, epsilon: float, dtype: Dtype, relu: bool) -> Normalised:
    over = tuple(range(1, grouped.ndim - 1))  # all but group and channel
    # One pass over the activations (E[x^2] - E[x]^2), so that XLA fuses both sums into one read. In float32 that
    # costs 0.1 % where the mean is 100 deviations from zero; behind a convolution it is a few.
    f32 = grouped.astype(jnp.float32)
    mean = jnp.mean(f32, axis=over, keepdims=True)
    var = jnp.maximum(jnp.mean(jnp.square(f32), axis=over, keepdims=True) - jnp.square(mean), 0.0)
    y = normalise(grouped, mean, var, scale, bias, epsilon, dtype)
    return (jax.nn.relu(y) if relu else y), mean, var
