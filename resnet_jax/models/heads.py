"""Heads that name the class of every pixel: FCN (Long et al. 2015) and DeepLabv3 (Chen et al. 2017), as torchvision's.

Parameters: `decoder`, then `head`, the 1x1 convolution that gives the classes; for the auxiliary head `aux` and
`aux_head`.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax import Array

from resnet_jax.models.layers import ModuleFactory
from resnet_jax.models.strides import total_stride

if TYPE_CHECKING:
    from resnet_jax.models.resnet import ResNet

#: Values of `ResNet.head`.
HEADS = ("classifier", "fcn", "deeplabv3")

#: Features of each branch of DeepLabv3's pyramid, and behind it (Chen et al. 2017, section 3.3).
ASPP_WIDTH = 256

#: Dilations of the three branches at an output stride of 16; they double at 8 (section 3.3).
ASPP_RATES = (6, 12, 18)


def segment(net: "ResNet", stages: Sequence[Array], features: Array, size: tuple[int, ...], conv: ModuleFactory,
            norm: ModuleFactory, train: bool) -> Any:  # fmt: skip
    """Returns a net's logits for every pixel, float32 (batch, height, width, num_classes); see `ResNet.__call__`.

    Args:
      net: whose head it is; called inside its own `__call__`.
      stages: outputs of the stages.
      features: what the last stage ends in.
      size: (height, width) of the images.
      conv, norm: factories with the net's fields bound.
      train: whether this is training.
    """

    def classify(x: Array, decoder: nn.Module, dropout: float, name: str) -> Array:
        x = decoder(x, train)
        x = nn.Dropout(dropout, deterministic=not train)(x)
        logits = conv(net.num_classes, 1, use_bias=True, name=name)(x).astype(jnp.float32)
        # Half-pixel centres, as torch's `align_corners=False`.
        return jax.image.resize(logits, (logits.shape[0], *size, net.num_classes), "linear", antialias=False)

    if net.head == "fcn":
        logits = classify(features, FCN(net.head_width, conv, norm, name="decoder"), 0.1, "head")
    else:
        times = 2 if total_stride(net) <= 8 else 1
        rates = tuple(times * rate for rate in ASPP_RATES)
        decoder = DeepLabv3(net.head_width or ASPP_WIDTH, rates, conv, norm, name="decoder")
        logits = classify(features, decoder, 0.0, "head")
    if not net.aux_head or not (train or net.is_initializing()):
        return logits
    auxiliary = classify(stages[-2], FCN(net.head_width, conv, norm, name="aux"), 0.1, "aux_head")
    return (logits, auxiliary) if train else logits


class FCN(nn.Module):
    """A 3x3 convolution with BN and ReLU ahead of the classes, as in torchvision's `FCNHead`.

    Attributes:
      width: its features; None: a quarter of the input's.
    """

    width: int | None
    conv: ModuleFactory
    norm: ModuleFactory

    @nn.compact
    def __call__(self, x: Array, train: bool) -> Array:
        return self.norm(name="bn").relu(self.conv(self.width or x.shape[-1] // 4, 3, name="conv")(x), train)


class DeepLabv3(nn.Module):
    """Atrous spatial pyramid pooling, then a 3x3 convolution (Chen et al. 2017, section 3.3; torchvision's order).

    Attributes:
      width: features of each branch and behind them.
      rates: dilations of the branches with 3x3 kernels.
    """

    width: int
    rates: tuple[int, ...]
    conv: ModuleFactory
    norm: ModuleFactory

    @nn.compact
    def __call__(self, x: Array, train: bool) -> Array:
        def layer(x: Array, kernel_size: int, name: str, dilation: int = 1) -> Array:
            x = self.conv(self.width, kernel_size, dilation=dilation, name=f"{name}_conv")(x)
            return self.norm(name=f"{name}_bn").relu(x, train)

        branches = [layer(x, 1, "branch1")]
        branches += [layer(x, 3, f"branch{i}", rate) for i, rate in enumerate(self.rates, start=2)]
        pooled = layer(jnp.mean(x, axis=(1, 2), keepdims=True, dtype=jnp.float32).astype(x.dtype), 1, "pool")
        branches.append(jnp.broadcast_to(pooled, branches[0].shape))
        x = layer(jnp.concatenate(branches, axis=-1), 1, "project")
        x = nn.Dropout(0.5, deterministic=not train)(x)
        return layer(x, 3, "last")
