"""`python -m experiments NAME render`: writes a table or figure, or all of a paper's, with our runs."""

from collections.abc import Sequence

from experiments import registry
from experiments.commands.options import RUNS, add_runs, fill_all, folder
from resnet_jax.cli.arguments import Parser
from resnet_jax.errors import UserError


def main(name: str, arguments: Sequence[str]) -> None:
    """Runs the command.

    Args:
      name: of a table or figure, of a paper for all of it, or several of them with commas between.
      arguments: those after `render`.
    """
    parser = Parser(prog=f"python -m experiments {name} render", description=__doc__)
    add_runs(parser)
    parser.add_argument("--out", type=folder, help="folder to write to (RUNS/report)")
    options = parser.parse_args(arguments)
    names = registry.expand(name)
    if not options.runs.exists() and options.runs != RUNS:
        raise UserError(f"--runs={options.runs}: there is no such folder")

    from experiments.outputs import render, state

    filled = fill_all(names, options)
    command = " ".join(["python -m experiments", name, "render", *arguments])
    written = render(name.replace(",", "+"), filled, options.out or options.runs / "report", command)
    for one in filled:
        print(f"{one.experiment.name:16s} {state(one)}")
    for path in written.values():
        print(path)
