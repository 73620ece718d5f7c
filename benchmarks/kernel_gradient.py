"""The gradient of convolutions' kernels on a CPU: XLA's own beside ours, layer by layer.

python -m benchmarks kernel_gradient [--rounds=N] [--write]
"""

import statistics
import time
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from benchmarks.pages import table
from resnet_jax.models.convolution import kernel_gradient


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
    Layer("digits, stage 1", 128, 8, 16, 16, 3, 1),
    Layer("stem, 112 pixels", 32, 112, 3, 64, 7, 2),
    Layer("ResNet-18, stage 1", 32, 28, 64, 64, 3, 1),
    Layer("ResNet-50, stage 1, 1x1", 32, 28, 64, 256, 1, 1),
    Layer("ResNet-50, stage 3, 1x1", 32, 14, 1024, 256, 1, 1),
)

Gradient = Callable[[Array, Array, Array], Array]


def ways(layer: Layer) -> tuple[Gradient, Gradient, tuple[Array, Array, Array]]:
    """XLA's gradient, ours, and what both take: images, kernel, cotangent."""
    pad = ((layer.kernel - 1) // 2,) * 2
    window = ((layer.stride,) * 2, (pad, pad))
    conv = partial(_conv, window=window)
    rng = np.random.default_rng(0)
    out = layer.side // layer.stride
    shapes = (
        (layer.batch, layer.side, layer.side, layer.channels),
        (layer.kernel, layer.kernel, layer.channels, layer.features),
        (layer.batch, out, out, layer.features),
    )
    given = tuple(jnp.asarray(rng.normal(size=shape), jnp.float32) for shape in shapes)

    def xla(images: Array, kernel: Array, cotangent: Array) -> Array:
        return jax.vjp(lambda w: conv(images, w), kernel)[1](cotangent)[0]

    def ours(images: Array, kernel: Array, cotangent: Array) -> Array:
        return kernel_gradient(conv, window, images, kernel, cotangent)

    return jax.jit(xla), jax.jit(ours), given  # type: ignore[return-value]


def _conv(images: Array, kernel: Array, *, window: Any) -> Array:
    strides, padding = window
    return jax.lax.conv_general_dilated(images, kernel, strides, padding, dimension_numbers=("NHWC", "HWIO", "NHWC"))


def measure(rounds: int, note: Callable[[str], None]) -> list[tuple[Layer, float, float]]:
    """(layer, milliseconds of XLA's, of ours): medians of the processor's time over rounds in which they take turns."""
    rows = []
    for layer in LAYERS:
        note(layer.where)
        xla, ours, given = ways(layer)
        seconds: list[list[float]] = [[], []]
        for number in range(rounds + 1):
            for way, found in zip((xla, ours), seconds, strict=True):
                began = time.process_time()
                jax.block_until_ready(way(*given))
                if number:  # the first compiles
                    found.append(time.process_time() - began)
        before, after = (1000 * statistics.median(found) for found in seconds)
        rows.append((layer, before, after))
    return rows


def report(rows: list[tuple[Layer, float, float]]) -> str:
    """The table."""
    cells = [
        [layer.where, f"{layer.batch}x{layer.side}x{layer.side}x{layer.channels}",
         f"{layer.kernel}x{layer.kernel}/{layer.stride}, {layer.features}", f"{xla:.1f}", f"{ours:.1f}",
         f"{xla / ours:.1f}"]
        for layer, xla, ours in rows
    ]  # fmt: skip
    return table(["layer", "images", "kernel, features", "XLA's, ms of CPU", "ours", "times faster"], cells)
