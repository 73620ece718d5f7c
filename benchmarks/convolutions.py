"""Convolutions and their gradients on a CPU: XLA's own beside ours, layer by layer.

python -m benchmarks convolutions [--rounds=N] [--write]
"""

import statistics
import time
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from benchmarks.pages import table
from resnet_jax.errors import UserError
from resnet_jax.kernels.build import available
from resnet_jax.models.convolution import conv_general_dilated


class Layer(NamedTuple):
    """A convolution: batch, side of the images, channels in and out, side of the kernel, stride."""

    where: str
    batch: int
    side: int
    channels: int
    features: int
    kernel: int
    stride: int


LAYERS = (
    Layer("CIFAR, stage 1", 128, 32, 16, 16, 3, 1),
    Layer("CIFAR, stage 2", 128, 16, 32, 32, 3, 1),
    Layer("CIFAR, stage 3", 128, 8, 64, 64, 3, 1),
    Layer("CIFAR, first of stage 2", 128, 32, 16, 32, 3, 2),
    Layer("digits, stage 1", 128, 8, 16, 16, 3, 1),
    Layer("digits, stage 3", 128, 2, 64, 64, 3, 1),
    Layer("stem, 112 pixels", 32, 112, 3, 64, 7, 2),
    Layer("ResNet-18, stage 1", 32, 28, 64, 64, 3, 1),
    Layer("ResNet-18, stage 4", 32, 7, 512, 512, 3, 1),
    Layer("ResNet-50, stage 1, 1x1", 32, 28, 64, 256, 1, 1),
    Layer("ResNet-50, stage 3, 1x1", 32, 14, 1024, 256, 1, 1),
)

Convolution = Callable[..., Array]
Parts = dict[str, Callable[[Array, Array, Array], Array]]


def parts(convolution: Convolution, layer: Layer) -> Parts:
    """A layer, and the gradients of its images and of its kernel: of (images, kernel, cotangent of the outputs)."""
    pad = ((layer.kernel - 1) // 2,) * 2

    def conv(images: Array, kernel: Array) -> Array:
        names = ("NHWC", "HWIO", "NHWC")
        return convolution(images, kernel, (layer.stride,) * 2, (pad, pad), dimension_numbers=names)

    def of_images(images: Array, kernel: Array, cotangent: Array) -> Array:
        return jax.vjp(lambda x: conv(x, kernel), images)[1](cotangent)[0]

    def of_kernel(images: Array, kernel: Array, cotangent: Array) -> Array:
        return jax.vjp(lambda w: conv(images, w), kernel)[1](cotangent)[0]

    found: Parts = {"the layer": jax.jit(lambda images, kernel, cotangent: conv(images, kernel))}
    if layer.channels > 3:  # a first layer's images need none
        found["its images' gradient"] = jax.jit(of_images)
    return found | {"its kernel's gradient": jax.jit(of_kernel)}


def operands(layer: Layer) -> tuple[Array, Array, Array]:
    """Images, kernel and a cotangent of the outputs."""
    rng = np.random.default_rng(0)
    out = layer.side // layer.stride
    shapes = (
        (layer.batch, layer.side, layer.side, layer.channels),
        (layer.kernel, layer.kernel, layer.channels, layer.features),
        (layer.batch, out, out, layer.features),
    )
    images, kernel, cotangent = (jnp.asarray(rng.normal(size=shape), jnp.float32) for shape in shapes)
    return images, kernel, cotangent


Row = tuple[Layer, dict[str, tuple[float, float]]]


def measure(rounds: int, note: Callable[[str], None]) -> list[Row]:
    """Of each part of a layer, (milliseconds of XLA's, of ours): medians of the processor's time over rounds in turn.

    Raises:
      UserError: where there are none of ours.
    """
    if jax.default_backend() != "cpu" or jax.device_count() > 1 or not available():
        raise UserError("convolutions of our own are for one CPU device and need a C++ compiler ($CXX or c++)")
    rows = []
    for layer in LAYERS:
        note(layer.where)
        given = operands(layer)
        xla, ours = parts(jax.lax.conv_general_dilated, layer), parts(conv_general_dilated, layer)
        found = {}
        for part in ours:
            seconds: list[list[float]] = [[], []]
            for number in range(rounds + 1):
                for way, times in zip((xla[part], ours[part]), seconds, strict=True):
                    began = time.process_time()
                    jax.block_until_ready(way(*given))
                    if number:  # the first compiles
                        times.append(time.process_time() - began)
            before, after = (1000 * statistics.median(times) for times in seconds)
            found[part] = (before, after)
        rows.append((layer, found))
    return rows


def report(rows: list[Row]) -> str:
    """The table."""
    names = ("the layer", "its images' gradient", "its kernel's gradient")
    cells = []
    for layer, found in rows:
        pairs = [found.get(name) for name in names]
        cells.append([
            layer.where, f"{layer.batch}x{layer.side}x{layer.side}x{layer.channels}",
            f"{layer.kernel}x{layer.kernel}/{layer.stride}, {layer.features}",
            *(f"{xla:.1f} / {ours:.1f} = {xla / ours:.1f}" if (xla, ours) != (0, 0) else "-"
              for xla, ours in (pair or (0.0, 0.0) for pair in pairs)),
        ])  # fmt: skip
    heading = [f"{name}: XLA's / ours, ms of CPU" for name in names]
    return table(["", "images", "kernel, features", *heading], cells)
