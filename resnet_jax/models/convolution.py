"""The convolution behind every layer: XLA's own everywhere but on a CPU, where it is slow.

There, `resnet_jax.kernels` compute it where they can: float32, on one device, features in sixteens. Elsewhere on a CPU
it is XLA's own, with the sums of its worst cases taken in another order.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from resnet_jax.kernels import convolution as compiled
from resnet_jax.kernels.convolution import Window
from resnet_jax.models.custom_gradient import with_gradient

Convolve = Callable[[Array, Array], Array]

#: Most slices of the batch that a kernel's gradient is computed over: more gave no more (docs/performance.md).
SLICES = 8

#: Bytes of a slice's inputs or outputs below which slicing costs more than it gains.
SLICE_BYTES = 2**19


def conv_general_dilated(
    images: Array,
    kernel: Array,
    window_strides: Sequence[int],
    padding: str | Sequence[tuple[int, int]],
    **options: Any,
) -> Array:
    """`jax.lax.conv_general_dilated` as `nn.Conv` calls it, (batch, height, width, channels).

    On a CPU it is that of `resnet_jax.kernels` where they take it. Else the same sums are taken in another order where
    XLA's own takes several times as long: for images smaller than their kernel (`conv_of_patches`), and in the gradient
    of kernels (`kernel_gradient`). On any other platform, and with dilation, groups or a precision, it is XLA's own.
    """
    if jax.default_backend() != "cpu" or not _is_ordinary(options):
        return jax.lax.conv_general_dilated(images, kernel, window_strides, padding, **options)
    if isinstance(padding, str):
        padding = jax.lax.padtype_to_pads(images.shape[1:3], kernel.shape[:2], window_strides, padding)
    window = (tuple(window_strides), tuple((int(low), int(high)) for low, high in padding))
    conv: Convolve = partial(_conv, window=window, **options)
    if compiled.takes(images, kernel, window):
        forward: Convolve = partial(compiled.convolution, window=window)
        gradients = _compiled_gradients
    elif images.shape[1] < kernel.shape[0] or images.shape[2] < kernel.shape[1]:
        return conv_of_patches(images, kernel, window_strides, padding)
    else:
        forward, gradients = conv, _gradients

    def gradient(args: tuple[Array, ...], _: Array, cotangent: Array) -> tuple[Array, Array]:
        images, kernel = args
        return gradients(conv, window, images, kernel, cotangent)

    return with_gradient(conv, forward, gradient)(images, kernel)


def _is_ordinary(options: dict[str, Any]) -> bool:
    dilations = [*(options.get("lhs_dilation") or ()), *(options.get("rhs_dilation") or ())]
    return set(dilations) <= {1} and options.get("feature_group_count", 1) == 1 and options.get("precision") is None


def _conv(images: Array, kernel: Array, *, window: Window, **options: Any) -> Array:
    return jax.lax.conv_general_dilated(images, kernel, *window, **options)


def _compiled_gradients(
    conv: Convolve, window: Window, images: Array, kernel: Array, cotangent: Array
) -> tuple[Array, Array]:
    if kernel.shape[2] % compiled.BLOCK == 0:
        of_images = compiled.images_gradient(cotangent, kernel, images.shape, window)
    else:  # a first layer's, which nobody asks for in training
        (of_images,) = jax.vjp(lambda x: conv(x, kernel), images)[1](cotangent)
    if _is_pointwise(kernel, window):
        return of_images, kernel_gradient(conv, window, images, kernel, cotangent)
    return of_images, compiled.kernel_gradient(images, cotangent, kernel.shape, window)


def _gradients(conv: Convolve, window: Window, images: Array, kernel: Array, cotangent: Array) -> tuple[Array, Array]:
    (of_images,) = jax.vjp(lambda x: conv(x, kernel), images)[1](cotangent)
    return of_images, kernel_gradient(conv, window, images, kernel, cotangent)


def _is_pointwise(kernel: Array, window: Window) -> bool:
    return kernel.shape[:2] == (1, 1) and not any(map(any, window[1]))


def kernel_gradient(conv: Convolve, window: Window, images: Array, kernel: Array,
                    cotangent: Array) -> Array:  # fmt: skip
    """The gradient of a convolution's kernel, (rows, columns, channels, features), as a CPU computes it fastest.

    A 1x1 kernel's is one matrix product over all positions. A larger one's is XLA's own, over slices of the batch that
    are added up: its convolution of whole batches with one another runs out of cache.

    Args:
      conv: the convolution of images with a kernel.
      window: its strides and padding.
      images: (batch, height, width, channels).
      kernel: where the gradient is taken; only its shape matters.
      cotangent: of the outputs, (batch, out height, out width, features).
    """
    strides, _ = window
    if _is_pointwise(kernel, window):
        seen = images[:, :: strides[0], :: strides[1]]
        return jnp.einsum("bhwc,bhwf->cf", seen, cotangent)[None, None].astype(kernel.dtype)
    slices = _slices(len(images), 4 * max(images.size, cotangent.size))
    parts = zip(jnp.split(images, slices), jnp.split(cotangent, slices), strict=True)
    gradients = [jax.vjp(lambda w, x=x: conv(x, w), kernel)[1](g)[0] for x, g in parts]
    return sum(gradients[1:], start=gradients[0])


def _slices(batch: int, size: int) -> int:
    """How many slices to take a batch of so many bytes in."""
    if jax.device_count() > 1:  # which share the batch: a slice would be of one device's images
        return 1
    return max(n for n in (1, 2, 4, SLICES) if batch % n == 0 and (n == 1 or size >= n * SLICE_BYTES))


def conv_of_patches(images: Array, kernel: Array, strides: Sequence[int], padding: Sequence[tuple[int, int]]) -> Array:
    """The same convolution as one matrix product: patches (positions, taps * channels) with the kernel.

    XLA's CPU backend has no fast convolution for an image smaller than its kernel, such as the 2x2 of the last stage
    of a CIFAR net on 8x8 digits: 3.2 ms where a 4x4 image takes 0.2, and two thirds of ResNet-56's step. This takes
    0.15 ms.
    """
    padded = jnp.pad(images, ((0, 0), *padding, (0, 0)))
    rows, columns = kernel.shape[:2]
    height = (padded.shape[1] - rows) // strides[0] + 1
    width = (padded.shape[2] - columns) // strides[1] + 1
    taps = [
        padded[:, i : i + height * strides[0] : strides[0], j : j + width * strides[1] : strides[1]]
        for i in range(rows)
        for j in range(columns)
    ]
    patches = jnp.concatenate(taps, axis=-1)
    return patches @ kernel.reshape(-1, kernel.shape[-1])
