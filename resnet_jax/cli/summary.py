"""`summary`: prints the layers of a net, its depth, parameters and multiply-adds."""

import json
from collections.abc import Sequence

from resnet_jax.cli.flags import JSON, parse, verb_flags
from resnet_jax.errors import UserError

USAGE = "summary NAME [--image_size=N] [--json], or summary --list"


def main(arguments: Sequence[str]) -> None:
    """Prints a table of layers, one JSON object, or all names."""
    values = verb_flags(
        ("integer", "image_size", None, "side of the images in pixels"), JSON,
        ("bool", "list", False, "list the names of all nets"),
    )  # fmt: skip
    names = parse(values, USAGE, arguments)

    from resnet_jax.models.registry import create_model, get_variant, list_models
    from resnet_jax.models.summary import summarize

    if values.list:
        print(json.dumps(list_models()) if values.json else "\n".join(list_models()))
        return
    if len(names) != 1:
        raise UserError(f"summary needs one NAME; usage: {USAGE}")
    size = values.image_size if values.image_size is not None else get_variant(names[0]).image_size
    if size < 1:
        raise UserError(f"--image_size={size} must be 1 or more")
    summary = summarize(create_model(names[0]), names[0], size)
    if values.json:
        print(json.dumps({"name": summary.name, "depth": summary.depth, "params": summary.params,
                          "flops": summary.flops, "image_size": size}))  # fmt: skip
        return

    from rich.console import Console

    from resnet_jax.report.grid import make_grid, to_rich

    rows = [
        (layer.path, layer.kind, "x".join(map(str, layer.output)), f"{layer.params:,}",
         f"{layer.flops:,}" if layer.flops else "")
        for layer in summary.layers
    ]  # fmt: skip
    grid = make_grid(("layer", "kind", "output", "parameters", "multiply-adds"), rows)
    console = Console()
    console.print(to_rich(grid, f"{summary.name} at {size}x{size}", console.width, box=None))
    print(
        f"{summary.name}: {summary.depth} weighted layers, {summary.params:,} parameters, "
        f"{summary.flops / 1e9:.3f} billion multiply-adds at {size}x{size}"
    )
