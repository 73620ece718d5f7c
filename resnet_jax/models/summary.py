"""Layers of a net: shapes, parameters, multiply-adds and weighted depth, read off an abstract forward pass."""

import dataclasses
import functools
import math
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from resnet_jax.models.registry import create_model, get_variant


@dataclasses.dataclass(frozen=True)
class Layer:
    """A layer with parameters.

    Attributes:
      path: its name, `stage2/block1/conv1`.
      kind: "conv", "dense" or "norm".
      output: shape of its output without the batch axis.
      params: number of its parameters.
      flops: multiply-adds for one image; zero for normalisation, which the papers do not count.
    """

    path: str
    kind: str
    output: tuple[int, ...]
    params: int
    flops: int

    @property
    def weighted(self) -> bool:
        """Whether the papers count it towards the depth: convolutions and fully connected layers in sequence."""
        return self.kind != "norm" and "/shortcut/" not in self.path


@dataclasses.dataclass(frozen=True)
class Summary:
    """A net's layers and their sums; `flops` are multiply-adds, as in table 1 of the 2015 paper."""

    name: str
    image_size: int
    layers: tuple[Layer, ...]

    @property
    def depth(self) -> int:
        return sum(layer.weighted for layer in self.layers)

    @property
    def params(self) -> int:
        return sum(layer.params for layer in self.layers)

    @property
    def flops(self) -> int:
        return sum(layer.flops for layer in self.layers)


def summarize(model: nn.Module, name: str, image_size: int, channels: int = 3) -> Summary:
    """Summarises a net at a given image size. Nothing is computed: shapes alone flow through the net.

    Args:
      model: a net of this package.
      name: what to call it.
      image_size: height and width of the images in pixels.
      channels: channels of the images.

    Raises:
      UserError: for an image that the net cannot take.
    """
    layers: dict[str, Layer] = {}

    def record(next_call: Any, args: Any, kwargs: Any, context: Any) -> Any:
        output = next_call(*args, **kwargs)
        params = context.module.variables.get("params", {})
        own = {name: value.shape for name, value in params.items() if hasattr(value, "shape")}
        if own and context.method_name == "__call__":
            kind = {nn.Conv: "conv", nn.Dense: "dense", nn.DenseGeneral: "dense"}.get(type(context.module), "norm")
            shape = tuple(output.shape[1:])
            # Each position of the output takes one multiply-add for each weight of its kernel. There is one image, but
            # a detector's last layers see many regions of it.
            positions = math.prod(output.shape[:-1])
            flops = positions * math.prod(own["kernel"]) if "kernel" in own else 0
            count = sum(math.prod(s) for s in own.values())
            path = "/".join(context.module.path)
            if path in layers:  # on another level of a pyramid: the same weights, work of its own
                layers[path] = dataclasses.replace(layers[path], flops=layers[path].flops + flops)
            else:
                layers[path] = Layer(path, kind, shape, count, flops)
        return output

    def forward(key: jax.Array, images: jax.Array) -> Any:
        with nn.intercept_methods(record):
            return model.init(key, images, train=False)

    images = jax.ShapeDtypeStruct((1, image_size, image_size, channels), jnp.float32)
    jax.eval_shape(forward, jax.random.key(0), images)
    return Summary(name, image_size, tuple(layers.values()))


@functools.cache  # tracing a thousand layers takes ten seconds
def variant_summary(name: str) -> Summary:
    """Of a named net at the image size that it was published for, counted once in a process.

    Raises:
      UserError: for an unknown name.
    """
    return summarize(create_model(name), name, get_variant(name).image_size)
