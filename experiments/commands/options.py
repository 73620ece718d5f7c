"""What several commands share: options, and the tables with the runs that they ask for."""

import argparse
import ast
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from resnet_jax.errors import UserError, printable, unknown_name

if TYPE_CHECKING:
    from experiments.tables import Filled

#: Where runs are looked for, and where new ones are put, by default. The ablation and the tutorials write there, too.
RUNS, NEW_RUNS = Path("runs"), Path("runs/papers")

#: Fields that `--set` does not take where runs are shown, and why.
FROM_WEIGHTS = {"init_hash": "runs take it from init_from",
                "detection.proposals_hash": "runs take it from detection.proposals_from"}  # fmt: skip
NOT_SET = {
    **FROM_WEIGHTS,
    "seed": "all seeds that there are runs of are shown",
    "steps_scale": "all lengths that there are runs of are shown",
}


def folder(text: str) -> Path:
    """Returns the path that was typed, with ~ for the home folder: a shell leaves it alone behind `--out=`."""
    return Path(text).expanduser()


def add_runs(parser: argparse.ArgumentParser) -> None:
    """Adds --runs and --set, which say which runs are meant."""
    parser.add_argument("--runs", type=folder, default=RUNS, help="folder of the runs, however deep (%(default)s)")
    parser.add_argument("--set", action="append", nargs="+", default=[], metavar="FIELD=VALUE",
                        help="take runs that differ from the rows in these fields")  # fmt: skip


def fill_all(names: Sequence[str], options: argparse.Namespace, with_computed: bool = True) -> "list[Filled]":
    """Returns tables and figures with the runs that `add_runs` speaks of, and warns of folders that cannot be read."""
    from experiments import registry
    from experiments.run_index import index_runs
    from experiments.tables import fill

    fields = changes(options.set)
    index = index_runs(options.runs)
    for sentence in index.unreadable:
        print(f"warning: left out: {printable(sentence)}", file=sys.stderr)
    return [fill(registry.load(name), index, fields, with_computed) for name in names]


def changes(settings: Sequence[Sequence[str]], refused: Mapping[str, str] = NOT_SET) -> dict[str, Any]:
    """Returns config fields from "dtype=bfloat16", as --set gives them: values as Python writes them, else strings.

    Args:
      settings: all that was given, as argparse gathers it.
      refused: fields that cannot be set so, and why.

    Raises:
      UserError: for an unknown field, or one that cannot be set so.
    """
    from resnet_jax.config import base_config, flatten

    known, found = flatten(base_config()), {}
    for setting in (setting for several in settings for setting in several):
        field, equals, value = setting.partition("=")
        if not equals:
            raise UserError(f"--set {setting}: must be FIELD=VALUE, as dtype=bfloat16")
        if field not in known:
            raise unknown_name("config field", field, known)
        if field in refused:
            raise UserError(f"--set {setting}: {refused[field]}")
        try:
            found[field] = ast.literal_eval(value)
        except (ValueError, SyntaxError):
            found[field] = value
    return found
