"""Residual units: three kinds of layers, five orders of activation, and a stage of them.

The orders are the rows of `ORDERS`, which is figure 4 of the 2016 paper as a table. A plain net is made of the
same units, joined by the shortcut `none`.
"""

from collections.abc import Sequence
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax import Array

from resnet_jax.models.layers import ModuleFactory
from resnet_jax.models.scan import scan_units


class Order(NamedTuple):
    """What happens around the weight layers of a unit; each entry is "bn", "relu", "bn+relu" or empty.

    Attributes:
      before: ahead of the first weight layer (pre-activation).
      between: after each weight layer but the last.
      last: after the last weight layer, before the addition.
      after: after the addition.
      final: once, after the last unit of the net.
    """

    before: str
    between: str
    last: str
    after: str
    final: str


#: He et al. 2016, figure 4 (a) to (e). The stem is conv, BN, ReLU in each: with pre-activation that is the first
#: unit's own, moved ahead of its fork (section 4.1 there, on the first and the last unit of a net).
ORDERS: dict[str, Order] = {
    "original": Order(before="", between="bn+relu", last="bn", after="relu", final=""),
    "bn_after_addition": Order(before="", between="bn+relu", last="", after="bn+relu", final=""),
    "relu_before_addition": Order(before="", between="bn+relu", last="bn+relu", after="", final=""),
    "relu_only_preactivation": Order(before="relu", between="bn+relu", last="bn", after="", final="relu"),
    "full_preactivation": Order(before="bn+relu", between="bn+relu", last="", after="", final="bn+relu"),
}


def apply_order(layers: str, x: Array, norm: ModuleFactory, train: bool) -> Array:
    """Applies an entry of `Order` to x; `norm()` makes the batch norm."""
    if layers == "bn+relu":
        return norm().relu(x, train)
    if layers == "bn":
        return norm()(x, train)
    return nn.relu(x) if layers == "relu" else x


#: The weight layers of a unit: (kernel size, features as a multiple of the unit's width). He et al. 2015, figure 5;
#: `single` is the one-layer unit of the 2016 paper's table 3, "ResNet-110 (1layer)".
BLOCKS: dict[str, tuple[tuple[int, int], ...]] = {
    "basic": ((3, 1), (3, 1)),
    "bottleneck": ((1, 1), (3, 1), (1, 4)),
    "single": ((3, 1),),
}


def stride_index(block: str, stride_on: str) -> int:
    """Index of the weight layer that strides: a bottleneck's 1x1 as in the paper, or its 3x3 ("v1.5")."""
    return 1 if block == "bottleneck" and stride_on == "3x3" else 0


class Unit(nn.Module):
    """One residual unit: `conv1`, `bn1`, ..., joined with its `shortcut`.

    Attributes:
      block: a key of `BLOCKS`.
      order: a row of `ORDERS`.
      width: features of the first layer.
      strides: stride of the unit.
      stride_on: "1x1" or "3x3", the layer of a bottleneck that strides.
      first: whether this is the net's first unit, whose pre-activation is the stem's.
      conv, norm, shortcut: factories with the net's fields bound.
      last_norm: like `norm`, for the batch norm that ends the residual (its scale may start at zero).
      drop_rate, drop_per: probability that a training batch goes without the residual, or an example of it; see
        `_stochastic_depth`.
      dilations: of kernels up to the layer that strides, and of those behind it; see `ResNet.output_stride`.
      groups, width_per_group: of a bottleneck's 3x3 convolution; see `ResNet`.
      dropout: rate ahead of the second layer.
    """

    block: str
    order: Order
    width: int
    strides: int
    stride_on: str
    first: bool
    conv: ModuleFactory
    norm: ModuleFactory
    last_norm: ModuleFactory
    shortcut: ModuleFactory
    drop_rate: float = 0.0
    drop_per: str = "batch"
    dilations: tuple[int, int] = (1, 1)
    groups: int = 1
    width_per_group: int = 64
    dropout: float = 0.0

    @nn.compact
    def __call__(self, x: Array, train: bool) -> Array:
        """Maps (batch, height, width, channels) to (batch, height / strides, width / strides, features)."""
        order, layers = self.order, BLOCKS[self.block]
        inner = self.width * self.width_per_group // 64 * self.groups
        before = "" if self.first else order.before
        activated = apply_order(before, x, partial(self.norm, name="bn_before"), train)

        residual = activated
        strided = stride_index(self.block, self.stride_on)
        for i, (kernel_size, multiple) in enumerate(layers, start=1):
            strides = self.strides if i - 1 == strided else 1
            dilation = self.dilations[i - 1 > strided]
            is_last = i == len(layers)
            features = self.width * multiple if is_last else inner
            groups = self.groups if kernel_size > 1 else 1
            if self.dropout and i > 1:
                residual = nn.Dropout(self.dropout, deterministic=not train)(residual)
            layer = self.conv(features, kernel_size, strides, dilation=dilation, groups=groups, name=f"conv{i}")
            norm = partial(self.last_norm if is_last else self.norm, name=f"bn{i}")
            if is_last and order.last == "bn":
                residual = norm().behind(layer, residual, train)
            else:
                residual = apply_order(order.last if is_last else order.between, layer(residual), norm, train)

        if self.drop_rate:
            residual = self._stochastic_depth(residual, train)

        # A projection is a weight layer too: batch norm follows it where it follows the residual's last layer.
        projection_norm = self.norm if "bn" in order.last else None
        dilates = self.dilations[0] != self.dilations[1]
        join = self.shortcut(
            strides=self.strides, dilates=dilates, conv=self.conv, norm=projection_norm, name="shortcut"
        )
        joined = join(x, activated, residual, train)
        return apply_order(order.after, joined, partial(self.norm, name="bn_after"), train)

    def _stochastic_depth(self, residual: Array, train: bool) -> Array:
        """Huang et al. 2016, equations 2 and 5: in training the residual is there or not, for the whole batch.

        In testing it is scaled by how often it was there. With "example", as today's libraries have it, each example
        draws for itself, and the scale is 1 / survival in training; the expectation is the same. The layers are
        computed either way: their batch-norm statistics follow every batch, where the authors' skip those of dropped
        units.
        """
        survival = 1 - self.drop_rate
        if self.drop_per == "example":
            if not train:
                return residual
            kept = jax.random.bernoulli(self.make_rng("dropout"), survival, (residual.shape[0], 1, 1, 1))
            return jnp.where(kept, residual / jnp.asarray(survival, residual.dtype), 0)
        if not train:
            return residual * jnp.asarray(survival, residual.dtype)
        return jnp.where(jax.random.bernoulli(self.make_rng("dropout"), survival), residual, 0)


class Stage(nn.Module):
    """`size` units of one width, `block1` to `block{size}`; the first one strides.

    Attributes:
      size: number of units.
      strides: stride of the first unit.
      first: whether its first unit is the net's first, whose pre-activation is the stem's.
      unit: factory of a unit, taking `strides`, `first`, `drop_rate`, `dilations` and `name`.
      drop_rates: of each unit; none: zero.
      dilations: of kernels ahead of the place where the stage strides, or would, and behind it.
      scan: whether the units behind the first, which are alike, are one loop; they have no drop rates then.
    """

    size: int
    strides: int
    first: bool
    unit: ModuleFactory
    drop_rates: Sequence[float] = ()
    dilations: tuple[int, int] = (1, 1)
    scan: bool = False

    @nn.compact
    def __call__(self, x: Array, train: bool) -> Array:
        """Maps (batch, height, width, channels) to (batch, height / strides, width / strides, features)."""
        # Variables are made unit by unit in any case, so that they are the same.
        scanned = self.scan and not self.is_initializing()
        drop_rates = self.drop_rates or (0.0,) * self.size
        first = partial(self.unit, strides=self.strides, first=self.first, dilations=self.dilations)
        rest = partial(self.unit, strides=1, first=False, dilations=(self.dilations[1],) * 2)
        x = first(drop_rate=drop_rates[0], name="block1")(x, train)
        if scanned and self.size > 1:
            names = [f"block{i}" for i in range(2, self.size + 1)]
            return scan_units(self, rest(parent=None), names, x, train)
        for i in range(2, self.size + 1):
            x = rest(drop_rate=drop_rates[i - 1], name=f"block{i}")(x, train)
        return x
