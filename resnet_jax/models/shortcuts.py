"""Every way in which the two papers join a shortcut x with a residual F(x), each in a few lines.

2015 (section 3.3): `none` (a plain net), `A` (identity, zeros for new channels), `B` (1x1 projection where
dimensions change), `C` (1x1 projection everywhere).
2016 (section 3.1, table 1): `constant_scaling`, `exclusive_gating`, `shortcut_only_gating`, `conv1x1`,
`dropout`. Where dimensions change, they are laid over option A, as the paper's ResNet-110 uses it.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax import Array

from resnet_jax.models.layers import ModuleFactory


class Shortcut(nn.Module):
    """Joins shortcut and residual of one unit.

    Attributes:
      kind: a key of `SHORTCUTS`.
      strides: the unit's stride.
      conv: factory of a convolution, `conv(features, kernel_size, strides, name=...)`.
      norm: factory of the batch norm after a projection, or None where the unit's order has none there.
      shortcut_scale, residual_scale: the constants of `constant_scaling`.
      gate_bias: initial bias b_g of the gates g(x) = sigmoid(W_g x + b_g).
      dropout_rate: share of the shortcut's entries that `dropout` sets to zero in training.
      zeros: where `identity` adds channels: "sides" or "end".
      dilates: whether the unit leaves its stride out, see `ResNet.output_stride`: its projection stays.
    """

    kind: str
    strides: int
    conv: ModuleFactory
    norm: ModuleFactory | None
    shortcut_scale: float = 1.0
    residual_scale: float = 1.0
    gate_bias: float = 0.0
    dropout_rate: float = 0.5
    zeros: str = "sides"
    dilates: bool = False

    @nn.compact
    def __call__(self, x: Array, activated: Array, residual: Array, train: bool) -> Array:
        """Returns the joined signal, shaped like `residual`.

        Args:
          x: the unit's input, (batch, height, width, channels).
          activated: x after the unit's pre-activation, x itself where there is none. A projection takes this:
            the authors' pre-activation code shares the first BN and ReLU in units that change dimensions.
          residual: F(x), (batch, height / strides, width / strides, features).
          train: whether batch statistics and dropout are those of training.
        """
        return SHORTCUTS[self.kind](self, x, activated, residual, train)

    def identity(self, x: Array, residual: Array) -> Array:
        """Option A: every strides-th pixel, zeros for the channels that x lacks.

        The zeros go half before and half after, or all after; where they go only renames channels of the next stage.
        """
        x = x[:, :: self.strides, :: self.strides]
        missing = residual.shape[-1] - x.shape[-1]
        before = missing // 2 if self.zeros == "sides" else 0
        return jnp.pad(x, ((0, 0), (0, 0), (0, 0), (before, missing - before)))

    def projection(self, activated: Array, residual: Array, train: bool) -> Array:
        """A strided 1x1 convolution, then batch norm where weight layers of this unit have it."""
        conv = self.conv(residual.shape[-1], 1, self.strides, name="conv")
        return conv(activated) if self.norm is None else self.norm(name="bn").behind(conv, activated, train)

    def gate(self, x: Array, residual: Array) -> Array:
        """g(x) = sigmoid(W_g x + b_g), one value for each position and channel."""
        bias = nn.initializers.constant(self.gate_bias)
        logits = self.conv(residual.shape[-1], 1, self.strides, use_bias=True, bias_init=bias, name="gate")(x)
        return jax.nn.sigmoid(logits).astype(x.dtype)


def _none(unit: Shortcut, x: Array, activated: Array, residual: Array, train: bool) -> Array:
    return residual


def _option_a(unit: Shortcut, x: Array, activated: Array, residual: Array, train: bool) -> Array:
    return unit.identity(x, residual) + residual


def _option_b(unit: Shortcut, x: Array, activated: Array, residual: Array, train: bool) -> Array:
    if x.shape == residual.shape and not unit.dilates:
        return x + residual
    return unit.projection(activated, residual, train) + residual


def _option_c(unit: Shortcut, x: Array, activated: Array, residual: Array, train: bool) -> Array:
    return unit.projection(activated, residual, train) + residual


def _constant_scaling(unit: Shortcut, x: Array, activated: Array, residual: Array, train: bool) -> Array:
    return unit.shortcut_scale * unit.identity(x, residual) + unit.residual_scale * residual


def _exclusive_gating(unit: Shortcut, x: Array, activated: Array, residual: Array, train: bool) -> Array:
    g = unit.gate(x, residual)
    return (1 - g) * unit.identity(x, residual) + g * residual


def _shortcut_only_gating(unit: Shortcut, x: Array, activated: Array, residual: Array, train: bool) -> Array:
    return (1 - unit.gate(x, residual)) * unit.identity(x, residual) + residual


def _dropout(unit: Shortcut, x: Array, activated: Array, residual: Array, train: bool) -> Array:
    """Dropout as first published: entries vanish in training, all are scaled in testing.

    The 2016 paper's argument (section 3.1) rests on that: the shortcut has the expectation lambda = 0.5. The
    inverted form of today's libraries would keep the expectation at 1.
    """
    shortcut = unit.identity(x, residual)
    keep = 1 - unit.dropout_rate
    if not train:
        return keep * shortcut + residual
    mask = jax.random.bernoulli(unit.make_rng("dropout"), keep, shortcut.shape)
    return jnp.where(mask, shortcut, 0) + residual


SHORTCUTS: dict[str, Callable[[Shortcut, Array, Array, Array, bool], Array]] = {
    "none": _none,
    "A": _option_a,
    "B": _option_b,
    "C": _option_c,
    "constant_scaling": _constant_scaling,
    "exclusive_gating": _exclusive_gating,
    "shortcut_only_gating": _shortcut_only_gating,
    "conv1x1": _option_c,  # the 2016 paper's name for option C, in a 110-layer net
    "dropout": _dropout,
}
