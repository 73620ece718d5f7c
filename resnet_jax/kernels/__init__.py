"""Layers for CPUs, in C++, which replace XLA's in programs that are compiled for one CPU device.

This file is all that `resnet_jax.models` sees of them: functions that compute what XLA's do, on any device.
"""

from resnet_jax.kernels.batch_norm import batch_norm_on_cpu
from resnet_jax.kernels.convolution import conv_general_dilated
from resnet_jax.kernels.max_pool import max_pool

__all__ = ["batch_norm_on_cpu", "conv_general_dilated", "max_pool"]
