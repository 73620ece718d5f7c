"""Max-pooling of images: by max_pool.cc on one CPU device, where it can, else by XLA."""

from collections.abc import Sequence
from typing import Literal

import jax
from flax import linen as nn
from jax import Array

from resnet_jax.kernels import build
from resnet_jax.kernels.lowering import Computation, differentiable

#: Of rows and columns, below and above.
Pads = tuple[tuple[int, int], ...]


def max_pool(x: Array, window: int, strides: int, padding: int | Literal["SAME"] = 0) -> Array:
    """Takes the maximum of each channel in square windows, as `nn.max_pool` does.

    Args:
      x: (batch, height, width, channels).
      window: side of a window in pixels.
      strides: pixels from one window to the next.
      padding: pixels on every side, or XLA's SAME.
    """
    pads: str | Pads = padding if isinstance(padding, str) else ((padding, padding), (padding, padding))
    if not build.supports(x, x.shape[0]):
        return _plain(x, window, strides, pads)
    if isinstance(pads, str):
        pads = tuple(jax.lax.padtype_to_pads(x.shape[1:3], (window,) * 2, (strides,) * 2, pads))
    only_padding = any(max(low, high) >= window for low, high in pads)
    if only_padding or min(_shape(x, window, strides, pads)) <= 0:
        return _plain(x, window, strides, pads)
    sizes = {"window": window, "strides": strides, "pads": pads}
    (pooled,) = differentiable(Computation(_forward, **sizes), Computation(_gradient, **sizes), kept=(0,))(x)
    return pooled


def _plain(images: Array, window: int, strides: int, pads: str | Pads) -> Array:
    pooled: Array = nn.max_pool(images, (window, window), (strides, strides), pads)
    return pooled


def _forward(images: Array, *, cpus: int, window: int, strides: int, pads: Pads) -> Sequence[Array]:
    if not build.runs_on(cpus):
        return [_plain(images, window, strides, pads)]
    return _call("max_pool", _shape(images, window, strides, pads), window, strides, pads, images)


def _gradient(
    images: Array, pooled: Array, cotangent: Array, *, cpus: int, wanted: Sequence[int], window: int, strides: int,
    pads: Pads,
) -> Sequence[Array]:  # fmt: skip
    """Of several equal pixels in a window, the first one gets the gradient."""
    if not build.runs_on(cpus):
        return jax.vjp(lambda x: _plain(x, window, strides, pads), images)[1](cotangent)
    return _call("max_pool_gradient", images.shape, window, strides, pads, images, pooled, cotangent)


def _shape(images: Array, window: int, strides: int, pads: Pads) -> tuple[int, ...]:
    height, width = (
        (side + low + high - window) // strides + 1 for side, (low, high) in zip(images.shape[1:3], pads, strict=True)
    )
    return (images.shape[0], height, width, images.shape[3])


def _call(
    name: str, shape: tuple[int, ...], window: int, strides: int, pads: Pads, *operands: Array
) -> Sequence[Array]:
    (top, _), (left, _) = pads
    return build.call(name, [shape], *operands, size=window, stride=strides, top=top, left=left)
