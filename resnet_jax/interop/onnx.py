"""A trained net as an ONNX file, for runtimes without JAX. jax2onnx writes it: see requirements-onnx.txt."""

import contextlib
import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax

from resnet_jax.errors import UserError
from resnet_jax.interop.stablehlo import pixels_spec, pixels_to_logits, write_program
from resnet_jax.interop.weights import Weights


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
    with jax.disable_jit(), contextlib.redirect_stdout(io.StringIO()):
        model = jax2onnx.to_onnx(pixels_to_logits(weights), [pixels_spec(weights)], model_name=weights.model)
    return write_program(weights, path, model.SerializeToString())
