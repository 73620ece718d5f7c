"""The kernels of max_pool.cc as functions of arrays, and which images they take."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from resnet_jax.kernels import build
from resnet_jax.kernels.build import BLOCK

#: Of rows and columns, below and above, or "SAME".
Padding = str | Sequence[tuple[int, int]]


def takes(images: Array, size: int, strides: int, padding: Padding) -> bool:
    """Whether the kernels take (batch, height, width, channels): channels in `BLOCK`s, and what `build.takes` says."""
    if images.shape[-1] % BLOCK or not build.takes(images, images.shape[0]):
        return False
    sees_a_pixel = all(max(low, high) < size for low, high in _pads(images, size, strides, padding))
    return sees_a_pixel and min(_shape(images, size, strides, padding)) > 0


def max_pool(images: Array, size: int, strides: int, padding: Padding) -> Array:
    """The largest of each channel in windows of `size` pixels squared."""
    return _call("max_pool", _shape(images, size, strides, padding), size, strides, padding, images)


def gradient(images: Array, outputs: Array, cotangent: Array, size: int, strides: int, padding: Padding) -> Array:
    """Of the images; of equal pixels in a window the first one has it, as with XLA."""
    return _call("max_pool_gradient", images.shape, size, strides, padding, images, outputs, cotangent)


def _pads(images: Array, size: int, strides: int, padding: Padding) -> Sequence[tuple[int, int]]:
    if not isinstance(padding, str):
        return padding
    found: Sequence[tuple[int, int]] = jax.lax.padtype_to_pads(images.shape[1:3], (size,) * 2, (strides,) * 2, padding)
    return found


def _shape(images: Array, size: int, strides: int, padding: Padding) -> tuple[int, ...]:
    sides = zip(images.shape[1:3], _pads(images, size, strides, padding), strict=True)
    height, width = ((side + low + high - size) // strides + 1 for side, (low, high) in sides)
    return (images.shape[0], height, width, images.shape[3])


def _call(name: str, shape: tuple[int, ...], size: int, strides: int, padding: Padding, images: Array,
          *others: Array) -> Array:  # fmt: skip
    (top, _), (left, _) = _pads(images, size, strides, padding)
    attributes = {"size": size, "stride": strides, "top": top, "left": left}
    call = jax.ffi.ffi_call(f"resnet_jax.{name}", jax.ShapeDtypeStruct(shape, jnp.float32), vmap_method="sequential")
    found: Array = call(images, *others, **{key: np.int64(value) for key, value in attributes.items()})
    return found
