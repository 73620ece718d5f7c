"""A 1x1 convolution and the batch norm behind it as one layer, which neither writes nor reads the convolution's output.

A chip that is bound by memory spends most of a training step on the outputs of bottlenecks' last convolutions: they are
four times as large as the inputs, written, read for the normalisation, and read three times for the gradients. But
y = xW has the mean E[x]W and the variances diag(W^T Cov[x] W). So statistics follow from a pass over the smaller x,
normalisation becomes part of the weights, and no gradient needs y.

Each group of statistics has weights of its own then. With more than one group a chip XLA's compiler for a TPU copies
activations around the products of a group, which costs more than is saved.
"""

from collections.abc import Sequence
from functools import partial

import jax
import jax.numpy as jnp
from flax.typing import Dtype
from jax import Array

from resnet_jax.kernels.lowering import Computation, differentiable


def folded_batch_norm(
    x: Array, kernel: Array, scale: Array, bias: Array, epsilon: float, dtype: Dtype = jnp.float32
) -> tuple[Array, Array, Array]:
    """Computes `batch_norm(x @ kernel, scale, bias, epsilon, dtype)`, with its statistics and sums in float32.

    Args:
      x: (groups, examples, height, width, channels), of the dtype `dtype`.
      kernel: (channels, features).
      scale: (features,).
      bias: (features,).
      epsilon: added to the variance.
      dtype: of the outputs.

    Returns:
      What `norm.batch_norm` does.
    """
    bound = {"epsilon": epsilon, "dtype": dtype}
    layer = differentiable(Computation(_forward, **bound), Computation(_gradient, **bound), kept=(3, 4))
    y, mean, var, *_ = layer(x, kernel, scale, bias)
    return y, mean, var


def _forward(
    x: Array, kernel: Array, scale: Array, bias: Array, *, cpus: int, epsilon: float, dtype: Dtype
) -> Sequence[Array]:
    """Returns the outputs, their means and variances before they are normalised, and E[x] and E[x x^T]."""
    del cpus  # XLA computes on every platform
    mean = jnp.mean(x.astype(jnp.float32), axis=(1, 2, 3))
    products = jnp.einsum("gnhwc,gnhwd->gcd", x, x, preferred_element_type=jnp.float32) / _positions(x)
    folded, shift, of_y, var = _fold(mean, products, kernel, scale, bias, epsilon=epsilon, dtype=dtype)
    y = jnp.einsum("gnhwc,gcf->gnhwf", x, folded.astype(dtype))
    y = (y.astype(jnp.float32) + _spread(shift)).astype(dtype)
    return y, _spread(of_y), _spread(var), mean, products


def _gradient(
    x: Array, kernel: Array, scale: Array, bias: Array, mean: Array, products: Array, of_y: Array, *of_others: Array,
    cpus: int, wanted: Sequence[int], epsilon: float, dtype: Dtype,
) -> Sequence[Array]:  # fmt: skip
    del cpus
    small = (mean, products, kernel, scale, bias)
    (folded, *_), pullback = jax.vjp(partial(_fold, epsilon=epsilon, dtype=dtype), *small)
    of_folded = jnp.einsum("gnhwc,gnhwf->gcf", x, of_y, preferred_element_type=jnp.float32)
    of_shift = jnp.sum(of_y.astype(jnp.float32), axis=(1, 2, 3))
    *of_statistics, of_kept_mean, of_kept_products = of_others
    of_mean, of_products, *of_parameters = pullback(
        (of_folded, of_shift, *(s.reshape(of_shift.shape) for s in of_statistics))
    )
    of_mean, of_products = of_mean + of_kept_mean, of_products + of_kept_products
    both = (of_products + of_products.swapaxes(1, 2)) / _positions(x)  # each product has x twice
    through_y = jnp.einsum("gnhwf,gcf->gnhwc", of_y, folded.astype(dtype))
    through_products = jnp.einsum("gnhwd,gcd->gnhwc", x, both.astype(dtype))
    of_x = through_y.astype(jnp.float32) + through_products.astype(jnp.float32) + _spread(of_mean / _positions(x))
    gradients = (of_x.astype(x.dtype), *of_parameters)
    return [gradients[i] for i in wanted]


def _fold(
    mean: Array, products: Array, kernel: Array, scale: Array, bias: Array, *, epsilon: float, dtype: Dtype
) -> tuple[Array, Array, Array, Array]:
    """Returns weights and constants of the normalised map, and means and variances of the map itself, by group.

    Args:
      mean: E[x], (groups, channels).
      products: E[x x^T], (groups, channels, channels).
      kernel, scale, bias, epsilon, dtype: see `folded_batch_norm`.
    """
    einsum = partial(jnp.einsum, precision=jax.lax.Precision.HIGHEST)
    covariance = products - mean[:, :, None] * mean[:, None, :]
    var = jnp.maximum(jnp.sum(kernel * einsum("gcd,df->gcf", covariance, kernel), axis=1), 0.0)
    folded = kernel * (scale / jnp.sqrt(var + epsilon))[:, None, :]
    # The mean is taken off as the rounded weights have it, so that the outputs' is the bias.
    rounding = jax.lax.stop_gradient(folded.astype(dtype).astype(jnp.float32) - folded)
    shift = bias - einsum("gc,gcf->gf", mean, folded + rounding)
    return folded, shift, einsum("gc,cf->gf", mean, kernel), var


def _positions(x: Array) -> int:
    """Returns how many positions of a group its statistics are taken over."""
    return x.size // (x.shape[0] * x.shape[-1])


def _spread(per_group: Array) -> Array:
    """Gives (groups, channels) the axes of examples and positions."""
    return per_group[:, None, None, None, :]
