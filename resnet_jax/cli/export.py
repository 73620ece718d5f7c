"""`export`: writes weights, or those of a run, for other programs."""

import json
import sys
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from resnet_jax.cli.flags import JSON, parse, verb_flags
from resnet_jax.errors import UserError, unknown_name

if TYPE_CHECKING:
    from resnet_jax.interop.weights import Weights

USAGE = "export --weights=DIR --format=FORMAT --out=FILE; DIR is a run or a folder of weights"


#: Names of the PyTorch code whose weights a safetensors file may be for; by default that which has the net.
LAYOUTS = ("torchvision", "akamaster", "fc_shortcut", "transformers", "timm_resnetv2", "torchvision_fcn",
           "torchvision_deeplabv3")  # fmt: skip

FORMATS = ("safetensors", *LAYOUTS, "stablehlo", "onnx")


def _write(weights: "Weights", kind: str, out: str) -> Mapping[str, Any]:
    """Writes one of `FORMATS` and returns what to print of it; `notes` go to stderr."""
    if kind == "stablehlo":
        from resnet_jax.interop.programs import write_stablehlo

        return write_stablehlo(weights, out)
    if kind == "onnx":
        from resnet_jax.interop.programs import export_onnx

        return export_onnx(weights, out)
    from resnet_jax.interop.export import export_safetensors

    return export_safetensors(weights, out, kind if kind in LAYOUTS else None)


def main(arguments: Sequence[str]) -> None:
    """Writes one file and prints what is in it."""
    values = verb_flags(
        ("string", "weights", None, "a folder of weights, a run, or a file as for convert"),
        ("string", "format", "safetensors", "safetensors in the names of the PyTorch code that has the net, or in "
         "those of " + ", ".join(LAYOUTS) + "; or a program: stablehlo (run by JAX alone), onnx"),
        ("string", "out", None, "the file to write"), JSON,
    )  # fmt: skip
    extra = parse(values, USAGE, arguments)
    if extra or not values.weights or not values.out:
        raise UserError(f"export needs --weights and --out and no other argument; usage: {USAGE}")
    if values.format not in FORMATS:
        raise unknown_name("format", values.format, FORMATS)

    from resnet_jax.training.load_weights import load_weights

    weights = load_weights(values.weights)
    written = _write(weights, values.format, values.out)
    for note in written.get("notes", ()):
        print(f"note: {note}", file=sys.stderr)
    if values.json:
        print(json.dumps({"model": weights.model, "format": values.format, "out": values.out, **written}))
    else:
        details = ", ".join(f"{name} {value}" for name, value in written.items() if name != "notes")
        print(f"{weights.model} written to {values.out}: {details}")
