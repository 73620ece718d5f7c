"""The verbs of `python -m resnet_jax`, one file each."""
