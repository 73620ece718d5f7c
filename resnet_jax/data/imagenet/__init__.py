"""ImageNet: what its classes are, how it is prepared, read, decoded and cropped. Nothing here imports JAX."""
