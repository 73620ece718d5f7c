"""Layers with gradients of their own: in C++ in programs for one CPU device, and of kernels in float32 everywhere.

This file is all that `resnet_jax.models` sees of them: functions that compute what XLA's do, on any device.
"""

from resnet_jax.kernels.batch_norm import batch_norm_on_cpu
from resnet_jax.kernels.convolution import conv_general_dilated
from resnet_jax.kernels.matrix_product import dot_general
from resnet_jax.kernels.max_pool import max_pool

__all__ = ["batch_norm_on_cpu", "conv_general_dilated", "dot_general", "max_pool"]
