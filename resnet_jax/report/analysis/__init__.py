"""Figures of what `resnet_jax.analysis` found in runs."""
