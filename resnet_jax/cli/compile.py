"""`compile`: compiles the steps of a config for devices that are not there, and says what they will take."""

import json
import sys
from collections.abc import Sequence
from typing import Any

from resnet_jax.aot.quiet import without_stderr
from resnet_jax.cli.flags import JSON, parse_with_config, verb_flags

USAGE = "compile --config=configs/imagenet.py:resnet50 --topology=v5e:16x16 [--json] [--config.FIELD=VALUE ...]"


def main(arguments: Sequence[str]) -> None:
    """Prints memory, roofline, collectives and costs of the training and the evaluation step."""
    values = verb_flags(
        ("string", "topology", None, "chip and sides: v5e:1x1, v5e:16x16, v4:2x2x1, v5p:4x4x4, v6e:4x4, h100:8; "
         "python -m benchmarks slices makes a table over nets and slices"),
        ("integer", "num_classes", None, "of a set whose classes are not known by its name"),
        ("bool", "evaluation", True, "compile the evaluation step, too; --noevaluation: only the training step"), JSON,
    )  # fmt: skip
    with without_stderr():  # configs import JAX, whose CUDA plugin says at once that there are no drivers
        config = parse_with_config(values, USAGE, arguments, "topology")

    import jax

    from resnet_jax.aot.cost import cost_of
    from resnet_jax.aot.programs import compile_program, lower_steps
    from resnet_jax.aot.report import describe
    from resnet_jax.aot.topologies import find

    # A program that is read from the cache has no compile time. No device of this machine is needed, nor looked for.
    jax.config.update("jax_enable_compilation_cache", False)
    jax.config.update("jax_platforms", "cpu")
    chip, devices = find(values.topology)
    note("lowering the steps")
    programs = lower_steps(config, devices, values.num_classes, values.evaluation)
    batch, share = config.batch_size, config.batch_size // len(devices)
    found: dict[str, Any] = {
        "model": config.model.name, "topology": values.topology, "devices": len(devices), "batch_size": batch,
        "dtype": config.dtype, "steps_per_dispatch": programs.steps,
    }  # fmt: skip
    if not values.json:
        print(f"{config.model.name}, {config.dtype}, batch {batch:,} on {values.topology}: {share:,} for each of "
              f"{len(devices)} devices; {programs.steps} step{'s' * (programs.steps > 1)} of a dispatch")  # fmt: skip
    steps_of_run = [("training step", programs.train, programs.steps, batch)]
    if programs.evaluate is not None:
        steps_of_run.append(("evaluation step", programs.evaluate, 1, programs.shapes.eval_batch_size))
    for name, lowered, steps, examples in steps_of_run:
        note(f"compiling the {name}; this takes minutes for deep nets")
        cost = cost_of(compile_program(lowered), chip, steps)
        found[name.replace(" ", "_")] = cost.to_json()
        if not values.json:
            print("\n".join(describe(name, cost, chip, len(devices), examples)), flush=True)
    if values.json:
        print(json.dumps(found))


def note(text: str) -> None:
    """Says on stderr what is going on."""
    print(text, file=sys.stderr, flush=True)
