"""Convolution: by convolution.cc and kernel_gradient.cc on one CPU device, where they can, else by XLA.

On a CPU, XLA takes several times as long as it needs for images smaller than their kernel, and for the gradients of
kernels. Where the C++ cannot be used there, the same sums are left to XLA in another order.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from resnet_jax.kernels import build
from resnet_jax.kernels.lowering import Computation, differentiable

#: A convolution of images with a kernel.
Convolve = Callable[[Array, Array], Array]

#: Strides, and padding below and above, of rows and columns.
Window = tuple[tuple[int, ...], tuple[tuple[int, int], ...]]

#: Options of `jax.lax.conv_general_dilated`.
Options = tuple[tuple[str, Any], ...]

#: Most slices of the batch that a kernel's gradient is computed over: more are not faster (docs/performance.md).
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
    """Computes `jax.lax.conv_general_dilated` as `nn.Conv` calls it, with a kernel that may be of a wider dtype.

    The kernel is rounded to the images' dtype, and its gradient is summed in its own: float32 of bfloat16 images. So
    several devices add float32 numbers, not gradients that each of them has rounded; on GPUs see `_summed_wide`.

    Args:
      images: (batch, height, width, channels).
      kernel: (rows, columns, channels / groups, features).
      window_strides: of rows and columns.
      padding: below and above, of rows and columns, or its name in XLA.
      options: others of `jax.lax.conv_general_dilated`. With dilation or groups, XLA computes on all platforms. A
        precision says nothing to the C++, which multiplies in float32.
    """
    if not build.has_known_sizes(images) or set(options.get("lhs_dilation") or ()) - {1}:
        return jax.lax.conv_general_dilated(images, kernel.astype(images.dtype), window_strides, padding, **options)
    dilation = options["rhs_dilation"] = tuple(options.get("rhs_dilation") or (1, 1))
    if isinstance(padding, str):
        reach = [(taps - 1) * apart + 1 for taps, apart in zip(kernel.shape[:2], dilation, strict=True)]
        padding = jax.lax.padtype_to_pads(images.shape[1:3], reach, window_strides, padding)
    window = (tuple(window_strides), tuple((int(low), int(high)) for low, high in padding))
    chosen = tuple(options.items())
    supported = _is_ordinary(chosen) and _supported(images, kernel, window)
    bound = {"window": window, "options": chosen, "supported": supported}
    (outputs,) = differentiable(Computation(_outputs, **bound), Computation(_gradients, **bound))(images, kernel)
    return outputs


def _is_ordinary(options: Options) -> bool:
    """Whether it has no groups and no dilation, so that a CPU has other ways to compute it than XLA's convolution."""
    chosen = dict(options)
    return chosen["rhs_dilation"] == (1, 1) and chosen.get("feature_group_count", 1) == 1


def _supported(images: Array, kernel: Array, window: Window) -> bool:
    """Whether the C++ can compute it: float32, and features in blocks."""
    return (
        kernel.dtype == jnp.float32
        and kernel.shape[3] % build.BLOCK == 0
        and images.shape[3] == kernel.shape[2]  # XLA says in its error what does not fit
        and min(min(sides) for sides in window[1]) >= 0
        and build.supports(images, images.shape[0], blocks=False)
        and min(*kernel.shape, *_output_sizes(images.shape, kernel.shape, window)) > 0
    )


def _outputs(
    images: Array, kernel: Array, *, cpus: int, window: Window, options: Options, supported: bool
) -> Sequence[Array]:
    if supported and build.runs_on(cpus):
        return [convolution(images, kernel, window)]
    return [_fastest(images, kernel, cpus, window, options)(images, kernel.astype(images.dtype))]


def _gradients(
    images: Array, kernel: Array, cotangent: Array, *, wanted: Sequence[int], **options: Any
) -> Sequence[Array]:
    ways = (_images_gradient, _kernel_gradient)
    return [ways[i](images, kernel, cotangent, **options) for i in wanted]


def _images_gradient(
    images: Array, kernel: Array, cotangent: Array, *, cpus: int, window: Window, options: Options, supported: bool
) -> Array:
    # The channels of a first layer come in no blocks.
    if supported and kernel.shape[2] % build.BLOCK == 0 and build.runs_on(cpus):
        return images_gradient(cotangent, kernel, images.shape, window)
    conv = _fastest(images, kernel, cpus, window, options)
    (gradient,) = jax.linear_transpose(lambda x: conv(x, kernel.astype(images.dtype)), images)(cotangent)
    return gradient


def _kernel_gradient(
    images: Array, kernel: Array, cotangent: Array, *, cpus: int, window: Window, options: Options, supported: bool
) -> Array:
    if not cpus or not _is_ordinary(options):
        return _summed_wide(images, kernel, cotangent, window, options)
    images, cotangent = images.astype(kernel.dtype), cotangent.astype(kernel.dtype)
    if kernel.shape[:2] == (1, 1) and not any(map(any, window[1])):  # one matrix product over all positions
        used = images[:, :: window[0][0], :: window[0][1]]
        return jnp.einsum("bhwc,bhwf->cf", used, cotangent)[None, None]
    if supported and build.runs_on(cpus):
        return kernel_gradient(images, cotangent, kernel.shape, window)
    conv = _fastest(images, kernel, cpus, window, options)
    # XLA's convolution of whole batches with one another runs out of a CPU's cache. Several devices share a batch, and
    # each slice would be one device's images.
    slices = _slices(len(images), 4 * max(images.size, cotangent.size)) if cpus == 1 else 1
    parts = zip(jnp.split(images, slices), jnp.split(cotangent, slices), strict=True)
    gradients = [jax.linear_transpose(lambda w, x=x: conv(x, w), kernel)(g)[0] for x, g in parts]
    return sum(gradients[1:], start=gradients[0])


def _summed_wide(images: Array, kernel: Array, cotangent: Array, window: Window, options: Options) -> Array:
    """Convolves the images with the cotangent, as JAX's transpose does, but gives the sums in the kernel's dtype.

    Not on GPUs: cuDNN's convolution of bfloat16 gives no float32 there, and XLA would widen images and cotangent ahead
    of it, which costs twice the memory traffic and half the speed. Each GPU rounds its sums.
    """
    if not cotangent.size:
        return jnp.zeros_like(kernel)
    (strides, padding), chosen = window, dict(options)
    dilation = chosen["rhs_dilation"]
    sides = zip(images.shape[1:3], kernel.shape[:2], cotangent.shape[1:3], strides, dilation, padding, strict=True)
    # The cotangent, spread out by the strides, has a kernel's size of places on the images, `apart` from one another.
    above = [(out - 1) * stride + (taps - 1) * apart + 1 - size - low
             for size, taps, out, stride, apart, (low, _) in sides]  # fmt: skip

    def convolve(images: Array, cotangent: Array, dtype: Any) -> Array:
        return jax.lax.conv_general_dilated(
            images,
            cotangent,
            window_strides=dilation,
            padding=[(low, high) for (low, _), high in zip(padding, above, strict=True)],
            rhs_dilation=strides,
            dimension_numbers=("CHWN", "IHWO", "HWNC"),
            batch_group_count=chosen.get("feature_group_count", 1),
            precision=chosen.get("precision"),
            preferred_element_type=dtype,
        ).astype(kernel.dtype)

    wide, rounded = partial(convolve, dtype=kernel.dtype), partial(convolve, dtype=images.dtype)
    if kernel.dtype == images.dtype:
        return wide(images, cotangent)
    return jax.lax.platform_dependent(images, cotangent, cuda=rounded, rocm=rounded, default=wide)


def _fastest(images: Array, kernel: Array, cpus: int, window: Window, options: Options) -> Convolve:
    """Returns the convolution that XLA computes fastest."""
    small = images.shape[1] < kernel.shape[0] or images.shape[2] < kernel.shape[1]
    if cpus and small and _is_ordinary(options):
        return partial(conv_of_patches, strides=window[0], padding=window[1])
    return lambda images, kernel: jax.lax.conv_general_dilated(images, kernel, *window, **dict(options))


def _slices(batch: int, size: int) -> int:
    """Returns how many slices to divide a batch of so many bytes into."""
    return max(n for n in (1, 2, 4, SLICES) if batch % n == 0 and (n == 1 or size >= n * SLICE_BYTES))


def conv_of_patches(images: Array, kernel: Array, strides: Sequence[int], padding: Sequence[tuple[int, int]]) -> Array:
    """Computes the convolution as one matrix product, every patch of the images against the kernel.

    XLA on a CPU has no fast convolution for an image smaller than its kernel, such as the 2x2 images of the last stage
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


def convolution(images: Array, kernel: Array, window: Window) -> Array:
    """Calls the C++: (batch, height, width, channels) with (rows, columns, channels, features), features in blocks."""
    sizes = _output_sizes(images.shape, kernel.shape, window)
    return _call("convolution", (images.shape[0], *sizes, kernel.shape[3]), window, images, kernel)


def images_gradient(cotangent: Array, kernel: Array, shape: tuple[int, ...], window: Window) -> Array:
    """Calls the C++ for the gradient of images of this shape, channels in blocks, from that of the outputs."""
    return _call("convolution_images_gradient", shape, window, cotangent, kernel)


def kernel_gradient(images: Array, cotangent: Array, shape: tuple[int, ...], window: Window) -> Array:
    """Calls the C++ for the gradient of a kernel of this shape, features in blocks, from that of the outputs."""
    return _call("convolution_kernel_gradient", shape, window, images, cotangent)


def _output_sizes(images: tuple[int, ...], kernel: tuple[int, ...], window: Window) -> tuple[int, ...]:
    """Height and width, zero or less where the kernel is larger than the padded images."""
    return tuple(
        (size + low + high - taps) // stride + 1
        for size, taps, stride, (low, high) in zip(images[1:3], kernel[:2], *window, strict=True)
    )


def _call(name: str, shape: tuple[int, ...], window: Window, *operands: Array) -> Array:
    (stride_y, stride_x), ((top, bottom), (left, right)) = window
    (found,) = build.call(
        name, [shape], *operands,
        stride_y=stride_y, stride_x=stride_x, top=top, bottom=bottom, left=left, right=right,
    )  # fmt: skip
    return found
