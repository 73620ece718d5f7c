"""Convolutions for CPUs, in C++: compiled on first use, called by XLA; see `resnet_jax.models.convolution`."""
