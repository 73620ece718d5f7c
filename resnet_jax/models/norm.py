"""Batch normalisation (Ioffe and Szegedy 2015) with the statistics of groups of examples.

Flax's own `nn.BatchNorm` always takes its statistics over the whole (global) batch and keeps the biased
variance. The papers' nets were trained on several GPUs without exchange of statistics, 32 examples on each
for ImageNet and 64 for CIFAR, and both Caffe and Torch keep the unbiased variance for testing.
"""

import jax
import jax.numpy as jnp
from flax import linen as nn
from flax.typing import Dtype, Initializer
from jax import Array

from resnet_jax.errors import UserError
from resnet_jax.models.normalisation import normalise, normalise_groups


class BatchNorm(nn.Module):
    """Normalises each channel over examples and positions; statistics in float32 whatever the dtype.

    Attributes:
      group_size: number of consecutive examples that share their statistics; 0 means the whole batch, over
        all devices. The result does not depend on how many devices hold the batch.
      momentum: decay of the running statistics, `running = momentum * running + (1 - momentum) * batch`.
      epsilon: added to the variance.
      dtype: dtype of the output; parameters and statistics are float32.
      scale_init: initialiser of the scale, ones unless a residual branch is to start at zero.
    """

    group_size: int = 0
    momentum: float = 0.9
    epsilon: float = 1e-5
    dtype: Dtype = jnp.float32
    scale_init: Initializer = nn.initializers.ones

    @nn.compact
    def __call__(self, x: Array, train: bool, relu: bool = False) -> Array:
        """Maps (batch, ..., channels) to the same shape, through a ReLU as well if `relu`.

        Raises:
          UserError: in training, if the batch is not a multiple of `group_size`.
        """
        channels = x.shape[-1]
        scale = self.param("scale", self.scale_init, (channels,), jnp.float32)
        bias = self.param("bias", nn.initializers.zeros, (channels,), jnp.float32)
        running_mean = self.variable("batch_stats", "mean", jnp.zeros, (channels,), jnp.float32)
        running_var = self.variable("batch_stats", "var", jnp.ones, (channels,), jnp.float32)

        if not train:
            y = normalise(x, running_mean.value, running_var.value, scale, bias, self.epsilon, self.dtype)
            return jax.nn.relu(y) if relu else y

        size = self.group_size or x.shape[0]
        if x.shape[0] % size:
            raise UserError(
                f"bn_group_size={size} does not divide the batch of {x.shape[0]}: "
                f"choose a divisor of {x.shape[0]}, or 0 for the whole batch"
            )
        grouped = x.reshape(-1, size, *x.shape[1:])
        y, mean, var = normalise_groups(grouped, scale, bias, self.epsilon, self.dtype, relu)

        if not self.is_initializing():
            count = grouped.size // mean.size  # positions of a group
            unbiased = var * (count / max(count - 1, 1))
            for running, batch in ((running_mean, mean), (running_var, unbiased)):
                # With several groups the running value follows their average.
                batch = jnp.mean(batch.reshape(-1, channels), axis=0)
                running.value = self.momentum * running.value + (1 - self.momentum) * batch

        return y.reshape(x.shape)
