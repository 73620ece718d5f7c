"""Times layers and their gradients on a CPU: XLA's own and those of `resnet_jax.kernels`.

python -m benchmarks kernels [--rounds=N] [--write]
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from benchmarks import note
from benchmarks.docs_tables import table
from benchmarks.paired_timing import time_in_turn
from resnet_jax.errors import UserError
from resnet_jax.kernels import conv_general_dilated, max_pool
from resnet_jax.kernels.build import in_use, switched_off
from resnet_jax.models.norm import batch_norm


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
Parts = dict[str, Callable[..., Any]]


def parts(convolution: Convolution, layer: Layer) -> Parts:
    """Returns functions of (images, kernel, cotangent): the layer, and the gradients of its images and its kernel."""
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
    """Returns images, kernel and a cotangent of the outputs."""
    rng = np.random.default_rng(0)
    out = layer.side // layer.stride
    shapes = (
        (layer.batch, layer.side, layer.side, layer.channels),
        (layer.kernel, layer.kernel, layer.channels, layer.features),
        (layer.batch, out, out, layer.features),
    )
    images, kernel, cotangent = (jnp.asarray(rng.normal(size=shape), jnp.float32) for shape in shapes)
    return images, kernel, cotangent


def norm_and_relu(x: Array) -> Array:
    """Applies batch norm in training, and the ReLU after it."""
    ones = jnp.ones(x.shape[-1])
    return batch_norm(x[None], ones, 0.1 * ones, 1e-5, relu=True)[0][0]


#: Layers without a kernel: the shapes that they are given, and what they compute.
PASSES: dict[str, tuple[tuple[int, ...], Callable[[Array], Array]]] = {
    "BN and ReLU, CIFAR, stage 1": ((128, 32, 32, 16), norm_and_relu),
    "BN and ReLU, CIFAR, stage 3": ((128, 8, 8, 64), norm_and_relu),
    "BN and ReLU, digits, stage 1": ((128, 8, 8, 16), norm_and_relu),
    "BN and ReLU, ResNet-50, stage 1": ((32, 28, 28, 256), norm_and_relu),
    "max-pooling, stem, 112 pixels": ((32, 56, 56, 64), lambda x: max_pool(x, 3, 2, 1)),
}


def measure(rounds: int) -> dict[str, list[dict[str, Any]]]:
    """Returns rows of `convolutions` and of `others`, with the milliseconds of XLA's and of ours for each part.

    They are medians of processor time, in turn.

    Raises:
      UserError: if our kernels are not in use here.
    """
    if not in_use():
        raise UserError("kernels of our own are for one CPU device and need a C++ compiler ($CXX or c++)")
    convolutions, others = [], []
    for layer in LAYERS:
        note(layer.where)
        xla, ours = parts(jax.lax.conv_general_dilated, layer), parts(conv_general_dilated, layer)
        convolutions.append({**layer._asdict(), "ms": _in_turn(xla, ours, operands(layer), rounds)})
    for where, (shape, layer_of) in PASSES.items():
        note(where)
        draw = np.random.default_rng(0)
        x = jnp.asarray(draw.normal(size=shape), jnp.float32)
        given = x, jnp.asarray(draw.normal(size=layer_of(x).shape), jnp.float32)
        with switched_off():
            xla = _compiled(layer_of, given)
        others.append({"where": where, "shape": shape, "ms": _in_turn(xla, _compiled(layer_of, given), given, rounds)})
    return {"convolutions": convolutions, "others": others}


def _compiled(layer: Callable[[Array], Array], given: tuple[Array, Array]) -> Parts:
    """Compiles functions that are made here, since JAX would reuse what it has traced before."""

    def alone(x: Array, cotangent: Array) -> Array:
        return layer(x)

    def with_gradient(x: Array, cotangent: Array) -> Any:
        outputs, pull = jax.vjp(lambda x: layer(x), x)
        return outputs, pull(cotangent)

    ways = {"the layer": alone, "with its gradient": with_gradient}
    return {name: jax.jit(way).lower(*given).compile() for name, way in ways.items()}


def _in_turn(xla: Parts, ours: Parts, given: tuple[Array, ...], rounds: int) -> dict[str, list[float]]:
    """Returns the milliseconds of XLA's and of ours, by part."""

    def repeat(way: Callable[..., Any], count: int) -> None:
        for _ in range(count):
            jax.block_until_ready(way(*given))

    found = {}
    for part in ours:
        works = {"xla": partial(repeat, xla[part]), "ours": partial(repeat, ours[part])}
        found[part] = [1000 * one.cpu for one in time_in_turn(works, 0, rounds).values()]
    return found


def report(found: dict[str, list[dict[str, Any]]]) -> str:
    """Returns a table of convolutions, and one of the other layers."""

    def cells(row: dict[str, Any], names: Sequence[str]) -> list[str]:
        pairs = (row["ms"].get(name) for name in names)
        return [f"{pair[0]:.1f} / {pair[1]:.1f} = {pair[0] / pair[1]:.1f}" if pair else "-" for pair in pairs]

    def heading(names: Sequence[str]) -> list[str]:
        return [f"{name}: XLA's / ours, ms of CPU" for name in names]

    names = ("the layer", "its images' gradient", "its kernel's gradient")
    convolutions = [
        [row["where"], "{batch}x{side}x{side}x{channels}".format_map(row),
         "{kernel}x{kernel}/{stride}, {features}".format_map(row), *cells(row, names)]
        for row in found["convolutions"]
    ]  # fmt: skip
    both = ("the layer", "with its gradient")
    others = [[row["where"], "x".join(map(str, row["shape"])), *cells(row, both)] for row in found["others"]]
    first = table(["", "images", "kernel, features", *heading(names)], convolutions)
    return f"{first}\n\n{table(['', 'activations', *heading(both)], others)}"
