"""The kernels of convolution.cc and kernel_gradient.cc as functions of arrays, and which convolutions they take."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from resnet_jax.kernels import build
from resnet_jax.kernels.build import BLOCK

#: Strides, and padding below and above, of rows and columns.
Window = tuple[tuple[int, ...], tuple[tuple[int, int], ...]]


def takes(images: Array, kernel: Array, window: Window) -> bool:
    """Whether the kernels take this convolution: float32, features in `BLOCK`s, and what `build.takes` says."""
    return (
        kernel.dtype == jnp.float32
        and kernel.shape[3] % BLOCK == 0
        and images.shape[3] == kernel.shape[2]  # else it is an error, and XLA's says what does not fit
        and min(min(sides) for sides in window[1]) >= 0
        and build.takes(images, images.shape[0])
        and min(*kernel.shape, *_output_sizes(images.shape, kernel.shape, window)) > 0
    )


def convolution(images: Array, kernel: Array, window: Window) -> Array:
    """(batch, height, width, channels) with (rows, columns, channels, features), features in `BLOCK`s."""
    sizes = _output_sizes(images.shape, kernel.shape, window)
    return _call("convolution", (images.shape[0], *sizes, kernel.shape[3]), window, images, kernel)


def images_gradient(cotangent: Array, kernel: Array, shape: tuple[int, ...], window: Window) -> Array:
    """The gradient of images of this shape, channels in `BLOCK`s; the cotangent is of the outputs."""
    return _call("convolution_images_gradient", shape, window, cotangent, kernel)


def kernel_gradient(images: Array, cotangent: Array, shape: tuple[int, ...], window: Window) -> Array:
    """The gradient of a kernel of this shape, features in `BLOCK`s."""
    return _call("convolution_kernel_gradient", shape, window, images, cotangent)


def _output_sizes(images: tuple[int, ...], kernel: tuple[int, ...], window: Window) -> tuple[int, ...]:
    """Height and width, zero or less where the kernel is larger than the padded images."""
    return tuple(
        (size + low + high - taps) // stride + 1
        for size, taps, stride, (low, high) in zip(images[1:3], kernel[:2], *window, strict=True)
    )


def _call(name: str, shape: tuple[int, ...], window: Window, *operands: Array) -> Array:
    (stride_y, stride_x), ((top, bottom), (left, right)) = window
    sides = {"stride_y": stride_y, "stride_x": stride_x, "top": top, "bottom": bottom, "left": left, "right": right}
    attributes: dict[str, Any] = {key: np.int64(value) for key, value in sides.items()}
    out = jax.ShapeDtypeStruct(shape, jnp.float32)
    return jax.ffi.ffi_call(f"resnet_jax.{name}", out, vmap_method="sequential")(*operands, **attributes)
