"""`python -m experiments`: the papers' tables and figures, and the digits ablation.

    python -m experiments [list]             all tables and figures, and how far they are
    python -m experiments NAME               the rows of one (he2015.table6), or of all of a paper's (he2015)
    python -m experiments NAME run           runs what is missing of one, or of all of a paper's
    python -m experiments NAME render        writes it: Markdown, CSV, LaTeX, pictures, a page
    python -m experiments ablation           trains plain-20/56 and ResNet-20/56 on digits and draws their curves
    python -m experiments readme             rewrites tables and pictures of README.md and docs/ from results/
    python -m experiments campaign           as many of the CIFAR-10 rows as fit into --minutes, most important first
    python -m experiments publish            copies finished records to results/ and rewrites README.md and docs/

Names are he2015.table6, or those of figures that analyse trained nets: gradients, veit2016.lesion.digits.

Each says more with --help.
"""

import importlib
import sys
from collections.abc import Sequence
from typing import Any

from resnet_jax.cli.run_command import run_command
from resnet_jax.errors import unknown_name

#: Commands without a table: the module in commands/ and its function, which takes the other arguments.
COMMANDS = {
    "list": ("listing", "main"),
    "ablation": ("digits", "ablation"),
    "readme": ("digits", "readme"),
    "publish": ("digits", "publish"),
    "campaign": ("campaign", "main"),
}

#: Commands for a table or figure: modules in commands/, whose `main` takes its name and the other arguments.
VERBS = ("run", "render")


def main(arguments: Sequence[str]) -> int:
    """Runs a command and returns the exit status.

    It is 0, 1 if a run failed, 2 for a mistake of the user's, said in one line, or 75 after a signal, with the state of
    all runs saved.
    """
    failed: list[str] = []
    return run_command(lambda: failed.extend(_carry_out(arguments) or ())) or int(bool(failed))


def _carry_out(arguments: Sequence[str]) -> list[str] | None:
    """Carries out a command and returns the names of runs that failed, if it runs any."""
    if arguments and arguments[0] in ("-h", "--help", "help"):
        print(__doc__.strip())
        return None
    if not arguments or arguments[0].startswith("-"):
        arguments = ["list", *arguments]
    first, *rest = arguments
    if first in COMMANDS:
        module, function = COMMANDS[first]
        return getattr(_command(module), function)(rest)
    if rest and rest[0] in VERBS:
        return _command(rest[0]).main(first, rest[1:])
    _check(first, rest)
    return _command("listing").show(first, rest)


def _check(name: str, rest: Sequence[str]) -> None:
    """Raises UserError, with the nearest names, unless a table or figure is named and only options follow."""
    from experiments import registry

    known = [*registry.NAMES, *registry.INSIDE, *registry.NOT_YET, *registry.PAPERS]
    for part in name.split(","):
        if part not in known:
            raise unknown_name("command, table or figure", part, [*COMMANDS, *known])
    registry.expand(name)  # says why one is not there yet
    if rest and not rest[0].startswith("-"):
        raise unknown_name("command", rest[0], VERBS)


def _command(module: str) -> Any:
    return importlib.import_module(f"experiments.commands.{module}")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
