"""The kernels of batch_norm.cc as functions of arrays, and which batches they take.

Arrays are (groups, positions, channels): a group's positions share their statistics. Scale and bias are (channels,),
means and biased variances (groups, channels).
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from resnet_jax.kernels import build
from resnet_jax.kernels.build import BLOCK

#: Outputs, means, variances.
Normalised = tuple[Array, Array, Array]


def takes(x: Array, scale: Array, bias: Array) -> bool:
    """Whether the kernels take (groups, examples, ..., channels): channels in `BLOCK`s, and what `build.takes` says."""
    fits = scale.shape == bias.shape == x.shape[-1:]  # else it is an error, and XLA's says what does not fit
    return (
        fits
        and scale.dtype == bias.dtype == jnp.float32
        and x.shape[-1] % BLOCK == 0
        and build.takes(x, x.shape[0] * x.shape[1])
    )


def batch_norm(x: Array, scale: Array, bias: Array, epsilon: float, relu: bool) -> Normalised:
    """Normalises each group by its own statistics, which it gives, too; `relu` is applied behind it."""
    shapes = (x.shape, (x.shape[0], x.shape[2]), (x.shape[0], x.shape[2]))
    return _call("batch_norm", shapes, epsilon, relu, x, scale, bias)


def gradients(x: Array, scale: Array, bias: Array, mean: Array, var: Array, cotangents: Normalised, epsilon: float,
              relu: bool) -> tuple[Array, Array, Array]:  # fmt: skip
    """Of x, scale and bias; mean and var are those that `batch_norm` gave."""
    shapes = (x.shape, scale.shape, bias.shape)
    return _call("batch_norm_gradients", shapes, epsilon, relu, x, scale, bias, mean, var, *cotangents)


def _call(name: str, shapes: tuple[tuple[int, ...], ...], epsilon: float, relu: bool, *operands: Array) -> Any:
    out = [jax.ShapeDtypeStruct(shape, jnp.float32) for shape in shapes]
    call = jax.ffi.ffi_call(f"resnet_jax.{name}", out, vmap_method="sequential")
    return tuple(call(*operands, epsilon=np.float32(epsilon), relu=relu))
