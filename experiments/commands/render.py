"""`python -m experiments NAME render`: writes a table or figure, or all of a paper's, with our runs."""

import sys
from collections.abc import Sequence
from pathlib import Path

from experiments import registry
from experiments.commands.options import RUNS, Parser, add_runs, changes
from resnet_jax.cli.run_command import run_command
from resnet_jax.errors import UserError


def main(name: str, arguments: Sequence[str]) -> int:
    """Runs the command and returns its exit status.

    Args:
      name: of a table or figure, of a paper for all of it, or several of them with commas between.
      arguments: those after `render`.
    """
    return run_command(lambda: _render(name, arguments))


def _render(name: str, arguments: Sequence[str]) -> None:
    parser = Parser(prog=f"python -m experiments {name} render", description=__doc__)
    add_runs(parser)
    parser.add_argument("--out", type=Path, help="folder to write to (RUNS/report)")
    options = parser.parse_args(arguments)
    names = registry.expand(name)
    fields = changes(options.set)
    if not options.runs.exists() and options.runs != RUNS:
        raise UserError(f"--runs={options.runs}: there is no such folder")

    from experiments.outputs import render, state
    from experiments.run_index import index_runs
    from experiments.tables import fill

    index = index_runs(options.runs)
    for sentence in index.unreadable:
        print(f"warning: left out: {sentence}", file=sys.stderr)
    filled = [fill(registry.load(one), index, fields) for one in names]
    command = " ".join(["python -m experiments", name, "render", *arguments])
    written = render(name.replace(",", "+"), filled, options.out or options.runs / "report", command)
    for one in filled:
        print(f"{one.experiment.name:16s} {state(one)}")
    for path in written.values():
        print(path)
