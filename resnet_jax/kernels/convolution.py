"""The kernels of convolution.cc as functions of arrays, and which convolutions they take."""

import contextlib
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from resnet_jax.kernels.build import available

#: Strides, and padding below and above, of rows and columns.
Window = tuple[tuple[int, ...], tuple[tuple[int, int], ...]]

#: Features and channels are taken so many at once.
BLOCK = 16

#: Fewer images than this are XLA's, which shares out one image's rows among processors, as the kernels do not.
LEAST_BATCH = 8

_switched_off = False


@contextlib.contextmanager
def switched_off() -> Iterator[None]:
    """What is traced meanwhile is XLA's, for comparison."""
    global _switched_off
    before, _switched_off = _switched_off, True
    try:
        yield
    finally:
        _switched_off = before


def in_use() -> bool:
    """Whether this process computes convolutions by the kernels: on one CPU device, where they can be compiled."""
    # XLA does not know how to share out a call between devices.
    return not _switched_off and jax.default_backend() == "cpu" and jax.device_count() == 1 and available()


def takes(images: Array, kernel: Array, window: Window) -> bool:
    """Whether the kernels take this convolution: float32, of known sizes, no small batch, where they are in use."""
    return (
        images.dtype == kernel.dtype == jnp.float32
        and kernel.shape[3] % BLOCK == 0
        and all(isinstance(size, int) for size in images.shape)  # symbols while a net of any batch is exported
        and images.shape[0] >= LEAST_BATCH
        and images.shape[3] == kernel.shape[2]  # else it is an error, and XLA's says what does not fit
        and min(min(sides) for sides in window[1]) >= 0
        and min(*images.shape, *kernel.shape, *_output_sizes(images.shape, kernel.shape, window)) > 0
        and in_use()
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
