"""ImageNet: what its classes are, how it is prepared, read, decoded and cropped. Nothing here imports JAX."""

#: Names in config.data.name of sets that are read from files while training.
STREAMED = ("imagenet", "image_folder")

#: How the names of all other sets of TFDS begin: "tfds:oxford_flowers102". They are streamed if their images differ in
#: size.
TFDS = "tfds:"
