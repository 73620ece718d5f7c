"""ImageNet: its classes, preparation, reading, decoding and cropping. Nothing here imports JAX."""

#: Values of config.data.name for sets that are read from files while training.
STREAMED = ("imagenet", "image_folder")

#: Prefix of TFDS's sets, as "tfds:oxford_flowers102". They are streamed if their images differ in size.
TFDS = "tfds:"
