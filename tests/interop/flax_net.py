"""A net in the names and with the padding of flax/examples/imagenet, written from what its checkpoints hold."""

from collections.abc import Sequence
from functools import partial

import jax.numpy as jnp
from flax import linen as nn


class _Unit(nn.Module):
    filters: int
    strides: int

    def residual(self, x, conv, norm):
        raise NotImplementedError

    @nn.compact
    def __call__(self, x):
        conv = partial(nn.Conv, use_bias=False)
        norm = partial(nn.BatchNorm, use_running_average=True, epsilon=1e-5)
        y = self.residual(x, conv, norm)
        if x.shape != y.shape:
            x = norm(name="norm_proj")(conv(y.shape[-1], (1, 1), self.strides, name="conv_proj")(x))
        return nn.relu(x + y)


class ResNetBlock(_Unit):
    def residual(self, x, conv, norm):
        y = nn.relu(norm(name="BatchNorm_0")(conv(self.filters, (3, 3), self.strides, name="Conv_0")(x)))
        return norm(name="BatchNorm_1")(conv(self.filters, (3, 3), name="Conv_1")(y))


class BottleneckResNetBlock(_Unit):
    def residual(self, x, conv, norm):
        y = nn.relu(norm(name="BatchNorm_0")(conv(self.filters, (1, 1), name="Conv_0")(x)))
        y = nn.relu(norm(name="BatchNorm_1")(conv(self.filters, (3, 3), self.strides, name="Conv_1")(y)))
        return norm(name="BatchNorm_2")(conv(4 * self.filters, (1, 1), name="Conv_2")(y))


class FlaxNet(nn.Module):
    """Stages of doubling width; the stem is symmetric, everything else is SAME."""

    block: type[_Unit]
    stage_sizes: Sequence[int]
    width: int = 8

    @nn.compact
    def __call__(self, x):
        x = nn.Conv(self.width, (7, 7), (2, 2), padding=[(3, 3), (3, 3)], use_bias=False, name="conv_init")(x)
        x = nn.relu(nn.BatchNorm(use_running_average=True, epsilon=1e-5, name="bn_init")(x))
        x = nn.max_pool(x, (3, 3), strides=(2, 2), padding="SAME")
        count = 0
        for k, size in enumerate(self.stage_sizes):
            for j in range(size):
                name = f"{self.block.__name__}_{count}"
                x = self.block(self.width * 2**k, 2 if k and not j else 1, name=name)(x)
                count += 1
        return nn.Dense(5, name="Dense_0")(jnp.mean(x, axis=(1, 2)))
