"""`evaluate`: scores the newest checkpoint of a run."""

import dataclasses
import json
import sys
from collections.abc import Sequence

from absl import flags

from resnet_jax.cli.flags import define_processes, join_processes, parse, verb_flags
from resnet_jax.errors import UserError

USAGE = "evaluate --workdir=DIR [--data_dir=DIR] [--json]"


def main(arguments: Sequence[str]) -> None:
    """Evaluates and prints a sentence, or one JSON object."""
    values = verb_flags()
    flags.DEFINE_string("workdir", None, "the run's folder", flag_values=values)
    flags.DEFINE_string("data_dir", None, "TFDS data directory, if not the run's own", flag_values=values)
    flags.DEFINE_bool("json", False, "print one JSON object as the last line", flag_values=values)
    define_processes(values)
    extra = parse(values, USAGE, arguments)
    if extra or not values.workdir:
        raise UserError(f"evaluate needs --workdir and no other argument; usage: {USAGE}")

    from resnet_jax.evaluation.single_view import evaluate
    from resnet_jax.training.distributed import is_chief

    join_processes(values)
    found = evaluate(values.workdir, values.data_dir)
    if not is_chief():
        return
    for sentence in found.passed_over:
        print(f"warning: {sentence}; the one before it is evaluated", file=sys.stderr)
    if values.json:
        print(json.dumps(dataclasses.asdict(found)))
    else:
        print(
            f"{found.model} after {found.step} steps on {found.examples} {found.evaluated_on} images of "
            f"{found.dataset}: {found.protocol.replace('_', ' ')} error {found.test_error:.2f} %, "
            f"loss {found.test_loss:.4f}"
        )
