"""Figures of what `resnet_jax.analysis` found in runs: one file each, and `figures` that reads and writes."""
