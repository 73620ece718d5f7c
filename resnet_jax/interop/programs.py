"""A trained net as one file that JAX runs without this package: StableHLO, as `jax.export` writes it.

exported = jax.export.deserialize(bytearray(open("net.stablehlo", "rb").read()))
logits = exported.call(pixels)  # uint8 (any number, size, size, channels)
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array, export

from resnet_jax.errors import UserError
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
    program = export.export(jax.jit(pixels_to_logits(weights)), platforms=PLATFORMS)(pixels_spec(weights))
    return bytes(program.serialize())


def write_stablehlo(weights: Weights, path: str | Path) -> Mapping[str, Any]:
    """Writes `export_stablehlo` to a file.

    Returns:
      Facts: what the program `takes` and `gives`, its `bytes`.

    Raises:
      UserError: if the file cannot be written.
    """
    return write_program(weights, path, export_stablehlo(weights))


def write_program(weights: Weights, path: str | Path, data: bytes) -> Mapping[str, Any]:
    """Writes an exported net, and returns its facts; see `write_stablehlo`."""
    path = Path(path).expanduser()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    except OSError as error:
        raise UserError(f"cannot write {path}: {error.strerror or error}") from error
    size = weights.image_size
    takes = f"uint8 pixels (n, {size}, {size}, {weights.channels})"
    return {"takes": takes, "gives": f"logits (n, {weights.num_classes})", "bytes": len(data)}
