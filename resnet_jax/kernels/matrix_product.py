"""A fully connected layer's product, whose kernel may be of a wider dtype than its inputs."""

from collections.abc import Sequence
from typing import Any

import jax
from jax import Array
from jax.lax import DotDimensionNumbers, PrecisionLike

from resnet_jax.kernels.lowering import Computation, differentiable


def dot_general(
    inputs: Array, kernel: Array, dimension_numbers: DotDimensionNumbers, precision: PrecisionLike = None
) -> Array:
    """Computes `jax.lax.dot_general` as `nn.Dense` calls it, with a kernel that may be of a wider dtype.

    The kernel is rounded to the inputs' dtype, and its gradient is summed in its own, as that of a convolution is.

    Args:
      inputs: (batch, inputs).
      kernel: (inputs, outputs).
      dimension_numbers: of that product.
      precision: as `jax.lax.dot_general` takes it.
    """
    if inputs.dtype == kernel.dtype:
        return jax.lax.dot_general(inputs, kernel, dimension_numbers, precision)
    forward, gradient = (Computation(f, precision=precision) for f in (_outputs, _gradients))
    return differentiable(forward, gradient)(inputs, kernel)[0]


def _outputs(inputs: Array, kernel: Array, *, cpus: int, precision: PrecisionLike) -> Sequence[Array]:
    return [jax.lax.dot(inputs, kernel.astype(inputs.dtype), precision=precision)]


def _gradients(
    inputs: Array, kernel: Array, cotangent: Array, *, cpus: int, wanted: Sequence[int], precision: PrecisionLike
) -> Sequence[Array]:
    def product(a: Array, b: Array, axis_of_a: int, axis_of_b: int, dtype: Any) -> Array:
        contracted = (((axis_of_a,), (axis_of_b,)), ((), ()))
        return jax.lax.dot_general(a, b, contracted, precision, preferred_element_type=dtype)

    ways = (
        lambda: product(cotangent, kernel.astype(inputs.dtype), 1, 1, inputs.dtype),
        lambda: product(inputs, cotangent, 0, 0, kernel.dtype),
    )
    return [ways[i]() for i in wanted]
