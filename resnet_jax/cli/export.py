"""`export`: writes weights, or those of a run, for other programs."""

import json
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from resnet_jax.cli.flags import JSON, parse, verb_flags
from resnet_jax.errors import UserError, unknown_name

if TYPE_CHECKING:
    from resnet_jax.interop.weights import Weights

USAGE = "export --weights=DIR --format=FORMAT --out=FILE; DIR is a run or a folder of weights"


def _safetensors(layout: str | None) -> Callable[["Weights", str], Mapping[str, Any]]:
    def write(weights: "Weights", out: str) -> Mapping[str, Any]:
        from resnet_jax.interop.export import export_safetensors

        return export_safetensors(weights, out, layout)

    return write


def _stablehlo(weights: "Weights", out: str) -> Mapping[str, Any]:
    from resnet_jax.interop.programs import write_stablehlo

    return write_stablehlo(weights, out)


def _onnx(weights: "Weights", out: str) -> Mapping[str, Any]:
    from resnet_jax.interop.programs import export_onnx

    return export_onnx(weights, out)


#: Writers of each format: (weights, file) -> what to print; `notes` go to stderr.
FORMATS: dict[str, Callable[["Weights", str], Mapping[str, Any]]] = {
    "safetensors": _safetensors(None),
    **{
        name: _safetensors(name)
        for name in ("torchvision", "akamaster", "fc_shortcut", "transformers", "timm_resnetv2")
    },
    "stablehlo": _stablehlo,
    "onnx": _onnx,
}


def main(arguments: Sequence[str]) -> None:
    """Writes one file and prints what is in it."""
    values = verb_flags(
        ("string", "weights", None, "a folder of weights, a run, or a file as for convert"),
        ("string", "format", "safetensors", "safetensors in the names of the PyTorch code that has the net, or in "
         "those of " + ", ".join(list(FORMATS)[1:-2]) + "; or a program: stablehlo (run by JAX alone), onnx"),
        ("string", "out", None, "the file to write"), JSON,
    )  # fmt: skip
    extra = parse(values, USAGE, arguments)
    if extra or not values.weights or not values.out:
        raise UserError(f"export needs --weights and --out and no other argument; usage: {USAGE}")
    if values.format not in FORMATS:
        raise unknown_name("format", values.format, FORMATS)

    from resnet_jax.training.load_weights import load_weights

    weights = load_weights(values.weights)
    written = dict(FORMATS[values.format](weights, values.out))
    for note in written.get("notes", ()):
        print(f"note: {note}", file=sys.stderr)
    if values.json:
        print(json.dumps({"model": weights.model, "format": values.format, "out": values.out, **written}))
    else:
        details = ", ".join(f"{name} {value}" for name, value in written.items() if name != "notes")
        print(f"{weights.model} written to {values.out}: {details}")
