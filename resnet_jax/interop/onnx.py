"""A trained net as an ONNX file, for runtimes without JAX. jax2onnx writes it: see requirements-onnx.txt."""

import contextlib
import io
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax import Array

from resnet_jax.errors import UserError
from resnet_jax.interop.stablehlo import pixels_spec, pixels_to_logits, write_program
from resnet_jax.interop.weights import Weights
from resnet_jax.models import resnet, vgg


def export_onnx(weights: Weights, path: str | Path) -> Mapping[str, Any]:
    """Writes what `export_stablehlo` gives as ONNX: pixels, uint8 (n, image_size, image_size, channels), to logits.

    Channels come last, as in this package and other than most ONNX files have them.

    Returns:
      Facts, as `write_stablehlo` gives them.

    Raises:
      UserError: without jax2onnx, or if the file cannot be written.
    """
    try:
        import jax2onnx
    except ImportError as error:
        raise UserError("ONNX needs jax2onnx: python -m pip install -r requirements-onnx.txt") from error
    # jax2onnx 0.17.1 looks for a class inside of JAX that JAX 0.12 no longer has wherever one jitted function calls
    # another; without jit there are none, and the graph is the same. It also prints.
    with jax.disable_jit(), _padding_by_itself(), contextlib.redirect_stdout(io.StringIO()):
        model = jax2onnx.to_onnx(pixels_to_logits(weights), [pixels_spec(weights)], model_name=weights.model)
    return write_program(weights, path, model.SerializeToString())


@contextlib.contextmanager
def _padding_by_itself() -> Iterator[None]:
    """Nets pad ahead of max-pools, not in them: jax2onnx 0.17.1 drops the padding of Flax's, and says nothing."""

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
