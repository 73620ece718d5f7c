"""Layers for CPUs, in C++: compiled on first use and called by XLA, where `resnet_jax.models` choose them."""
