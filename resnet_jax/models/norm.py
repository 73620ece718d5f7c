"""Batch normalisation (Ioffe and Szegedy 2015) with the statistics of groups of examples.

Flax's own `nn.BatchNorm` always takes its statistics over the whole (global) batch and keeps the biased
variance. The papers' nets were trained on several GPUs without exchange of statistics, 32 examples on each
for ImageNet and 64 for CIFAR, and both Caffe and Torch keep the unbiased variance for testing.
"""

import jax.numpy as jnp
from flax import linen as nn
from flax.typing import Dtype, Initializer
from jax import Array

from resnet_jax.errors import UserError
from resnet_jax.kernels import batch_norm_on_cpu
from resnet_jax.models.folded_norm import folded_batch_norm


def normalize(
    x: Array, mean: Array, var: Array, scale: Array, bias: Array, epsilon: float, dtype: Dtype = jnp.float32
) -> Array:
    """Returns (x - mean) / sqrt(var + epsilon) * scale + bias, computed in float32, as `dtype`."""
    multiplier = scale / jnp.sqrt(var + epsilon)
    return ((x.astype(jnp.float32) - mean) * multiplier + bias).astype(dtype)


@batch_norm_on_cpu
def batch_norm(
    x: Array, scale: Array, bias: Array, epsilon: float, dtype: Dtype = jnp.float32, relu: bool = False
) -> tuple[Array, Array, Array]:
    """Normalises groups of examples, each by its own mean and variance (Ioffe and Szegedy 2015, algorithm 1).

    Args:
      x: (groups, examples, ..., channels).
      scale: (channels,), the paper's gamma.
      bias: (channels,), the paper's beta.
      epsilon: added to the variance.
      dtype: of the outputs.
      relu: whether a ReLU follows.

    Returns:
      The outputs, shaped like x; each group's means and biased variances, float32, which broadcast to that.
    """
    over = tuple(range(1, x.ndim - 1))  # all but group and channel
    # One pass over the activations (E[x^2] - E[x]^2), so that XLA fuses both sums into one read. In float32 that
    # costs 0.1 % where the mean is 100 deviations from zero; behind a convolution it is a few.
    f32 = x.astype(jnp.float32)
    mean = jnp.mean(f32, axis=over, keepdims=True)
    var = jnp.maximum(jnp.mean(jnp.square(f32), axis=over, keepdims=True) - jnp.square(mean), 0.0)
    y = normalize(x, mean, var, scale, bias, epsilon, dtype)
    return (nn.relu(y) if relu else y), mean, var


class BatchNorm(nn.Module):
    """Normalises each channel over examples and positions; statistics in float32 whatever the dtype.

    Attributes:
      group_size: number of consecutive examples that share their statistics; 0 means the whole batch, over
        all devices. The result does not depend on how many devices hold the batch.
      momentum: decay of the running statistics, `running = momentum * running + (1 - momentum) * batch`.
      epsilon: added to the variance.
      dtype: dtype of the output; parameters and statistics are float32.
      scale_init: initialiser of the scale, ones unless a residual branch is to start at zero.
      fold: whether `behind` folds the layer into a 1x1 convolution in training; see `folded_norm`.
    """

    group_size: int = 0
    momentum: float = 0.9
    epsilon: float = 1e-5
    dtype: Dtype = jnp.float32
    scale_init: Initializer = nn.initializers.ones
    fold: bool = False

    def relu(self, x: Array, train: bool) -> Array:
        """Computes `nn.relu(self(x, train))`, in training as one layer, which passes over memory less often."""
        if train and not self.is_mutable_collection("intermediates"):  # they hold what is ahead of the ReLU
            return self(x, train, relu=True)
        return nn.relu(self(x, train))

    def behind(self, conv: nn.Conv, x: Array, train: bool) -> Array:
        """Computes `self(conv(x), train)`, in training without the output of a 1x1 convolution if `fold`.

        Not where more than the default precision is asked for.
        """
        whole = self.is_initializing() or self.is_mutable_collection("intermediates")  # which need what is between
        if whole or not (self.fold and train) or conv.kernel_size != (1, 1) or conv.precision is not None:
            return self(conv(x), train)
        x = x[:, :: conv.strides, :: conv.strides].astype(self.dtype)
        return self(x, train, kernel=conv.get_variable("params", "kernel")[0, 0])

    @nn.compact
    def __call__(self, x: Array, train: bool, relu: bool = False, kernel: Array | None = None) -> Array:
        """Maps (batch, ..., channels) to the same shape, through a ReLU as well if `relu`.

        In training `kernel`, (channels, features), is a linear map that comes first.

        Raises:
          UserError: in training, if the batch is not a multiple of `group_size`.
        """
        channels = x.shape[-1] if kernel is None else kernel.shape[-1]
        scale = self.param("scale", self.scale_init, (channels,), jnp.float32)
        bias = self.param("bias", nn.initializers.zeros, (channels,), jnp.float32)
        running_mean = self.variable("batch_stats", "mean", jnp.zeros, (channels,), jnp.float32)
        running_var = self.variable("batch_stats", "var", jnp.ones, (channels,), jnp.float32)

        if not train:
            y = normalize(x, running_mean.value, running_var.value, scale, bias, self.epsilon, self.dtype)
            return nn.relu(y) if relu else y

        size = self.group_size or x.shape[0]
        if x.shape[0] % size:
            raise UserError(
                f"bn_group_size={size} does not divide the batch of {x.shape[0]}: "
                f"choose a divisor of {x.shape[0]}, or 0 for the whole batch"
            )
        grouped = x.reshape(-1, size, *x.shape[1:])
        if kernel is None:
            y, mean, var = batch_norm(grouped, scale, bias, self.epsilon, self.dtype, relu)
        else:
            y, mean, var = folded_batch_norm(grouped, kernel, scale, bias, self.epsilon, self.dtype)

        if not self.is_initializing():
            count = y.size // mean.size  # positions of a group
            unbiased = var * (count / max(count - 1, 1))
            for running, batch in ((running_mean, mean), (running_var, unbiased)):
                # With several groups the running value follows their average.
                batch = jnp.mean(batch.reshape(-1, channels), axis=0)
                running.value = self.momentum * running.value + (1 - self.momentum) * batch

        return y.reshape(*x.shape[:-1], channels)
