"""`convert`: converts weights of PyTorch, transformers or Flax to a folder of this package's format."""

import json
import sys
from collections.abc import Sequence

from resnet_jax.cli.flags import JSON, numbers, parse, verb_flags
from resnet_jax.errors import UserError, printable

USAGE = (
    "convert --from=FILE --out=DIR [--model=resnet50] [--key=NAME] [--mean=R,G,B --std=R,G,B --image_size=N "
    "--classes=FILE]"
)


def main(arguments: Sequence[str]) -> None:
    """Converts, writes the folder and prints what was recognised."""
    values = verb_flags(
        ("string", "from", None, "safetensors, a PyTorch file (.pt, .pth, .th, .bin, .ckpt), a folder or index of the "
         "Hugging Face hub's, a checkpoint of flax/examples/imagenet, or hf:OWNER/NAME[@REVISION][:FILE]"),
        ("string", "out", None, "the folder to write"),
        ("string", "model", None, "the net that it must be; unset: recognised from the file"),
        ("list", "fields", [], "what the file does not tell, as "
         "stride_on=1x1,shortcut=none,shortcut_zeros=end,padding=symmetric"),
        ("string", "key", None, "which net, if the file holds several, as teacher or encoder_q"),
        ("integer", "num_classes", None, "classes that it must have"),
        ("list", "mean", None, "of pixels in [0, 1], by channel; unset: what config.json beside the file says, or "
         "else the layout's"),
        ("list", "std", None, "deviation of pixels in [0, 1], by channel"),
        ("integer", "image_size", None, "side in pixels that it was trained on"),
        ("string", "classes", None, "text file with the name, or label and name, of each output per line"), JSON,
    )  # fmt: skip
    extra = parse(values, USAGE, arguments)
    source, out = values["from"].value, values.out
    if extra or not source or not out:
        raise UserError(f"convert needs --from and --out and no other argument; usage: {USAGE}")
    fields = dict(field.partition("=")[::2] for field in values.fields)

    from resnet_jax.interop.weights import save_weights
    from resnet_jax.training.load_weights import import_weights

    pixels = "numbers, as 0.485,0.456,0.406"
    converted = import_weights(
        source, values.model, fields=fields, num_classes=values.num_classes,
        mean=numbers(values, "mean", float, pixels) or None, std=numbers(values, "std", float, pixels) or None,
        image_size=values.image_size, classes=values.classes, key=values.key,
    )  # fmt: skip
    weights = converted.weights
    save_weights(weights, out)
    for note in converted.notes:
        print(printable(f"note: {note}"), file=sys.stderr)
    if values.json:
        print(json.dumps({
            "model": weights.model, "fields": dict(weights.fields), "layout": converted.structure.layout.name,
            "tensors": converted.tensors, "parameters": converted.parameters, "num_classes": weights.num_classes,
            "image_size": weights.image_size, "shorter_side": weights.shorter_side, "classes": list(weights.classes),
            "mean": weights.mean.tolist(), "std": weights.std.tolist(),
            "source": dict(weights.source), "notes": list(converted.notes), "out": str(out),
        }))  # fmt: skip
        return
    own = ", ".join(f"{name}={value}" for name, value in weights.fields.items())
    digest = weights.source.get("sha256")
    print(
        f"{weights.source['file']} ({weights.source['format']}{', sha256 ' + digest if digest else ''}): "
        f"{converted.structure.layout.name}'s names, {converted.tensors} tensors, {converted.parameters:,} parameters; "
        f"written to {out} as {weights.model} with {own}"
    )
