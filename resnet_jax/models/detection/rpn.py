"""The region proposal network (Ren et al. 2015, section 3.1)."""

from typing import Any

import jax.numpy as jnp
from flax import linen as nn
from jax import Array

from resnet_jax.models.layers import conv


class RPN(nn.Module):
    """Says at each position, whether each of its anchors is an object, and its box.

    Attributes:
      features: of the 3x3 convolution.
      anchors: number of anchors at a position.
      strides: of the convolution.
      dtype: of the computation; outputs are float32.
      precision: as in `ResNet`.
    """

    features: int
    anchors: int
    strides: int
    dtype: Any
    precision: str

    @nn.compact
    def __call__(self, x: Array) -> tuple[Array, Array]:
        """Maps (batch, height, width, channels) to (batch, height, width, anchors) and (..., 4 * anchors)."""

        def layer(features: int, kernel_size: int, strides: int, name: str) -> nn.Conv:
            init = nn.initializers.normal(0.01)
            return conv(features, kernel_size, strides, dtype=self.dtype, precision=self.precision, use_bias=True,
                        kernel_init=init, name=name)  # fmt: skip

        x = nn.relu(layer(self.features, 3, self.strides, "conv")(x)).astype(self.dtype)
        objectness, boxes = layer(self.anchors, 1, 1, "objectness")(x), layer(4 * self.anchors, 1, 1, "boxes")(x)
        return objectness.astype(jnp.float32), boxes.astype(jnp.float32)
