"""Writes a trained net as a program: StableHLO, which JAX runs without this package, and ONNX, for others without JAX.

`jax.export` writes StableHLO:

exported = jax.export.deserialize(bytearray(open("net.stablehlo", "rb").read()))
logits = exported.call(pixels)  # uint8 (any number, size, size, channels)

jax2onnx writes ONNX: see requirements-onnx.txt.
"""

import contextlib
import io
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax import Array, export

from resnet_jax.atomic_write import write_file
from resnet_jax.errors import UserError
from resnet_jax.interop.weights import Weights
from resnet_jax.models import resnet, vgg
from resnet_jax.models.detection import LONGEST

#: Where an exported net runs.
PLATFORMS = ("cpu", "cuda", "tpu")


def pixels_to_logits(weights: Weights) -> Callable[[Array], Any]:
    """Returns the net, weights and normalisation inside: uint8 (n, size, size, channels) to logits (n, classes)."""
    model = weights.create_model()

    def forward(pixels: Array) -> Any:
        images = (pixels.astype(jnp.float32) / 255 - weights.mean) / weights.std
        return model.apply(weights.variables, images, train=False)

    return forward


def pixels_to_detections(weights: Weights) -> Callable[[Array, Array], dict[str, Array]]:
    """Returns a detector, weights and normalisation inside; see `export_stablehlo`."""
    model = weights.create_model()

    def forward(pixels: Array, sizes: Array) -> dict[str, Array]:
        rows, columns = (jnp.arange(side) for side in pixels.shape[1:3])
        inside = (rows < sizes[:, :1])[:, :, None] & (columns < sizes[:, 1:])[:, None, :]
        images = (pixels.astype(jnp.float32) / 255 - weights.mean) / weights.std
        inputs = {"images": jnp.where(inside[..., None], images, 0), "sizes": sizes}
        return dict(model.apply(weights.variables, inputs, train=False)._asdict())  # type: ignore[union-attr]

    return forward


def _detects(weights: Weights) -> bool:
    net: Any = weights.create_model()
    return net.task == "detection"


def pixels_spec(weights: Weights) -> jax.ShapeDtypeStruct:
    """Returns the shape of the images that an exported net takes; their number, "n", is left open."""
    size = weights.image_size
    return jax.ShapeDtypeStruct(export.symbolic_shape(f"n, {size}, {size}, {weights.channels}"), jnp.uint8)


def export_stablehlo(weights: Weights) -> bytes:
    """Returns the net as `jax.export` serialises it: weights and normalisation inside, for CPU, CUDA and TPU.

    It maps pixels, uint8 (n, image_size, image_size, channels) with any n, to logits, float32 (n, num_classes). Images
    are cropped and resized before: `prepare_image` does so as the tests do. JAX promises to read such a file for six
    months of its versions.

    A detector maps pixels of one wide image, uint8 (1, image_size, 5/3 image_size, channels), and its height and width
    without padding, int32 (1, 2), to {"boxes": (1, n, 4), "scores": (1, n), "labels": (1, n), "valid": (1, n)}; see
    `models.detection.regions.Detections`.
    """
    if _detects(weights):
        specs = (jax.ShapeDtypeStruct((1, *_widest(weights), weights.channels), jnp.uint8),
                 jax.ShapeDtypeStruct((1, 2), jnp.int32))  # fmt: skip
        return bytes(export.export(jax.jit(pixels_to_detections(weights)), platforms=PLATFORMS)(*specs).serialize())
    program = export.export(jax.jit(pixels_to_logits(weights)), platforms=PLATFORMS)(pixels_spec(weights))
    return bytes(program.serialize())


def _widest(weights: Weights) -> tuple[int, int]:
    return weights.image_size, round(LONGEST * weights.image_size)


def write_stablehlo(weights: Weights, path: str | Path) -> Mapping[str, Any]:
    """Writes `export_stablehlo` to a file.

    Returns:
      Facts: what the program `takes` and `gives`, its `bytes`.

    Raises:
      UserError: if the file cannot be written.
    """
    return _write_program(weights, path, export_stablehlo(weights))


def _write_program(weights: Weights, path: str | Path, data: bytes) -> Mapping[str, Any]:
    """Writes an exported net, and returns its facts; see `write_stablehlo`."""
    write_file(path, data)
    if _detects(weights):
        height, width = _widest(weights)
        takes = f"uint8 pixels (1, {height}, {width}, {weights.channels}), int32 sizes (1, 2)"
        return {"takes": takes, "gives": "boxes, scores, labels and valid", "bytes": len(data)}
    size = weights.image_size
    takes = f"uint8 pixels (n, {size}, {size}, {weights.channels})"
    net: Any = weights.create_model()
    places = f"{size}, {size}, " if net.task == "segmentation" else ""
    gives = f"logits (n, {places}{weights.num_classes})" if weights.num_classes else "features of the average pool"
    return {"takes": takes, "gives": gives, "bytes": len(data)}


def export_onnx(weights: Weights, path: str | Path) -> Mapping[str, Any]:
    """Writes what `export_stablehlo` gives as ONNX: pixels, uint8 (n, image_size, image_size, channels), to logits.

    Channels come last, as in this package and other than most ONNX files have them.

    Returns:
      Facts, as `write_stablehlo` gives them.

    Raises:
      UserError: without jax2onnx, for a detector, or if the file cannot be written.
    """
    if _detects(weights):
        raise UserError(f"{weights.model} finds boxes by loops, which are not written as ONNX; --format=stablehlo is")
    try:
        import jax2onnx
    except ImportError as error:
        raise UserError("ONNX needs jax2onnx: python -m pip install -r requirements-onnx.txt") from error
    # jax2onnx 0.17.1 looks for a class inside of JAX that JAX 0.12 no longer has wherever one jitted function calls
    # another; without jit there are none, and the graph is the same. It also prints.
    with jax.disable_jit(), _padding_by_itself(), contextlib.redirect_stdout(io.StringIO()):
        model = jax2onnx.to_onnx(pixels_to_logits(weights), [pixels_spec(weights)], model_name=weights.model)
    return _write_program(weights, path, model.SerializeToString())


@contextlib.contextmanager
def _padding_by_itself() -> Iterator[None]:
    """Has nets pad ahead of max-pools, not in them: jax2onnx 0.17.1 drops the padding of Flax's, and says nothing."""

    def max_pool(x: Array, window: int, strides: int, padding: int | Literal["SAME"] = 0) -> Array:
        spans, steps = (window, window), (strides, strides)
        sides = (
            jax.lax.padtype_to_pads(x.shape[1:3], spans, steps, padding) if padding == "SAME" else [(padding,) * 2] * 2
        )
        x = jnp.pad(x, ((0, 0), *sides, (0, 0)), constant_values=-jnp.inf)
        return nn.max_pool(x, window_shape=(window, window), strides=(strides, strides), padding="VALID")

    kept = resnet.max_pool, vgg.max_pool
    resnet.max_pool = vgg.max_pool = max_pool
    try:
        yield
    finally:
        resnet.max_pool, vgg.max_pool = kept
