"""Batch normalisation in training: by batch_norm.cc on one CPU device, where it can, else by XLA.

XLA on a CPU passes over memory once for each sum over a batch, and several times more for a gradient.
"""

import functools
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from flax.typing import Dtype
from jax import Array

from resnet_jax.kernels import build
from resnet_jax.kernels.lowering import Computation, differentiable

#: (x, scale, bias, epsilon, dtype, relu) -> outputs, means and variances.
BatchNorm = Callable[..., Sequence[Array]]


def batch_norm_on_cpu(plain: BatchNorm) -> BatchNorm:
    """Returns a batch norm that calls the C++ in programs for one CPU, and is `plain` in all others."""

    @functools.wraps(plain)
    def batch_norm(
        x: Array, scale: Array, bias: Array, epsilon: float, dtype: Dtype = jnp.float32, relu: bool = False
    ) -> Sequence[Array]:
        same = scale.shape == bias.shape == x.shape[-1:] and scale.dtype == bias.dtype == jnp.dtype(dtype)
        if not same or not build.supports(x, x.shape[0] * x.shape[1]):
            return plain(x, scale, bias, epsilon, dtype, relu)
        options = {"plain": plain, "epsilon": epsilon, "relu": relu}
        layer = differentiable(Computation(_forward, **options), Computation(_gradient, **options), kept=(1, 2))
        return layer(x, scale, bias)

    return batch_norm


def _forward(
    x: Array, scale: Array, bias: Array, *, cpus: int, plain: BatchNorm, epsilon: float, relu: bool
) -> Sequence[Array]:
    if not build.runs_on(cpus):
        return plain(x, scale, bias, epsilon, jnp.float32, relu)
    groups, channels = x.shape[0], x.shape[-1]
    statistics = (groups, channels)
    y, mean, var = _call("batch_norm", [_flat(x).shape, statistics, statistics], epsilon, relu, _flat(x), scale, bias)
    broadcasting = (groups, *[1] * (x.ndim - 2), channels)
    return y.reshape(x.shape), mean.reshape(broadcasting), var.reshape(broadcasting)


def _gradient(
    x: Array, scale: Array, bias: Array, mean: Array, var: Array, of_y: Array, of_mean: Array, of_var: Array,
    *, cpus: int, wanted: Sequence[int], plain: BatchNorm, epsilon: float, relu: bool,
) -> Sequence[Array]:  # fmt: skip
    if not build.runs_on(cpus):
        pullback = jax.vjp(lambda *args: tuple(plain(*args, epsilon, jnp.float32, relu)), x, scale, bias)[1]
        gradients = pullback((of_y, of_mean, of_var))
        return [gradients[i] for i in wanted]
    shapes = [_flat(x).shape, scale.shape, bias.shape]
    statistics = (s.reshape(x.shape[0], x.shape[-1]) for s in (mean, var))
    cotangents = (_flat(of_y), *(c.reshape(x.shape[0], x.shape[-1]) for c in (of_mean, of_var)))
    operands = (_flat(x), scale, bias, *statistics, *cotangents)
    of_x, of_scale, of_bias = _call("batch_norm_gradients", shapes, epsilon, relu, *operands)
    gradients = (of_x.reshape(x.shape), of_scale, of_bias)
    return [gradients[i] for i in wanted]


def _flat(x: Array) -> Array:
    """The kernels take (groups, positions, channels)."""
    return x.reshape(x.shape[0], -1, x.shape[-1])


def _call(
    name: str, shapes: Sequence[tuple[int, ...]], epsilon: float, relu: bool, *operands: Array
) -> Sequence[Array]:
    return build.call(name, shapes, *operands, epsilon=np.float32(epsilon), relu=relu)
