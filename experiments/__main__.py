"""`python -m experiments`: the papers' tables and figures, and the digits ablation.

    python -m experiments [list]             all tables and figures, and how far they are
    python -m experiments NAME               the rows of one (he2015.table6), or of all of a paper's (he2015)
    python -m experiments NAME run           runs what is missing
    python -m experiments NAME render        writes it: Markdown, CSV, LaTeX, pictures, a page
    python -m experiments ablation           trains plain-20/56 and ResNet-20/56 on digits and draws their curves
    python -m experiments readme             rewrites the README's tables and pictures from the records in results/
    python -m experiments publish            copies finished records to results/ and rewrites the README

Each says more with --help.
"""

import importlib
import importlib.util
import sys
from collections.abc import Sequence
from typing import Any

from resnet_jax.cli.door import run
from resnet_jax.errors import unknown_name

#: Commands of their own: the module in commands/ and its function, which takes the arguments left.
COMMANDS = {
    "list": ("listing", "main"),
    "ablation": ("digits", "ablation"),
    "readme": ("digits", "readme"),
    "publish": ("digits", "publish"),
}

#: What can be done with a table or figure: modules in commands/, whose `main` takes its name and the arguments left.
VERBS = ("run", "render")


def main(arguments: Sequence[str]) -> int:
    """Runs a command and returns the exit status: 0, or 2 for a mistake of the user's, said in one line."""
    if arguments and arguments[0] in ("-h", "--help", "help"):
        print(__doc__.strip())
        return 0
    if not arguments or arguments[0].startswith("-"):
        arguments = ["list", *arguments]
    first, *rest = arguments
    if first in COMMANDS:
        module, function = COMMANDS[first]
        return getattr(_command(module), function)(rest)
    return run(lambda: _check_name(first)) or _with_name(first, rest)


def _with_name(name: str, rest: Sequence[str]) -> int:
    """Shows a table or figure, or does with it what the next argument says."""
    if not rest or rest[0].startswith("-"):
        return _command("listing").show(name, rest)
    verbs = [verb for verb in VERBS if importlib.util.find_spec(f"experiments.commands.{verb}")]
    if rest[0] not in verbs:
        return run(lambda: _raise(unknown_name("command", rest[0], verbs)))
    return _command(rest[0]).main(name, rest[1:])


def _check_name(name: str) -> None:
    from experiments import registry

    for part in name.split(","):
        if part in registry.NOT_YET:
            registry.load(part)  # says why it is not there
        known = [*registry.NAMES, *registry.NOT_YET, *registry.PAPERS]
        if part not in known:
            raise unknown_name("command, table or figure", part, [*COMMANDS, *known])


def _raise(error: Exception) -> None:
    raise error


def _command(module: str) -> Any:
    return importlib.import_module(f"experiments.commands.{module}")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
