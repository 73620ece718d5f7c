"""ImageNet: what its classes are, how it is prepared, read, decoded and cropped. Nothing here imports JAX."""

#: Names in config.data.name of sets that are read from files while training.
STREAMED = ("imagenet", "image_folder")
