"""A trained net as one file that JAX runs without this package: StableHLO, as `jax.export` writes it.

exported = jax.export.deserialize(bytearray(open("net.stablehlo", "rb").read()))
logits = exported.call(pixels)  # uint8 (any number, size, size, channels)
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array, export

from resnet_jax.interop.weights import Weights

#: Where an exported net runs.
PLATFORMS = ("cpu", "cuda", "tpu")


def pixels_to_logits(weights: Weights) -> Callable[[Array], Any]:
    """The net with its weights and normalisation inside: uint8 (n, size, size, channels) to logits (n, classes)."""
    model = weights.create_model()

    def forward(pixels: Array) -> Any:
        images = (pixels.astype(jnp.float32) / 255 - weights.mean) / weights.std
        return model.apply(weights.variables, images, train=False)

    return forward


def pixels_spec(weights: Weights) -> jax.ShapeDtypeStruct:
    """Of the images that an exported net takes; their number, "n", is left open."""
    size = weights.image_size
    return jax.ShapeDtypeStruct(export.symbolic_shape(f"n, {size}, {size}, {weights.channels}"), jnp.uint8)


def export_stablehlo(weights: Weights) -> bytes:
    """The net as `jax.export` serialises it: weights and normalisation inside, for CPU, CUDA and TPU.

    It maps pixels, uint8 (n, image_size, image_size, channels) with any n, to logits, float32 (n, num_classes). Images
    are cropped and resized before: `prepare_image` does so as the tests do. JAX promises to read such a file for six
    months of its versions.
    """
    return bytes(
        export.export(jax.jit(pixels_to_logits(weights)), platforms=PLATFORMS)(pixels_spec(weights)).serialize()
    )
