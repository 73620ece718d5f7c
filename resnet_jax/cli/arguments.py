"""What the commands of experiments and benchmarks share of argparse."""

import argparse
from typing import Any, NoReturn

from resnet_jax.errors import UserError


def number(kind: type, what: str, least: float) -> Any:
    """Returns a converter for argparse: a finite number of a kind, `least` or more, called `what` in its message."""

    def convert(text: str) -> Any:
        try:
            value = kind(text)
        except ValueError:
            value = None
        if value is None or not least <= value < float("inf"):
            raise argparse.ArgumentTypeError(f"{text!r} must be {what}")
        return value

    return convert


class Parser(argparse.ArgumentParser):
    """Reports a mistake in one line, with exit status 2 through `run_command`."""

    def __init__(self, **arguments: Any) -> None:
        super().__init__(allow_abbrev=False, **arguments)

    def print_help(self, file: Any = None) -> None:
        """Prints the help; argparse itself is silent about a full disk."""
        print(self.format_help(), end="", file=file)

    def error(self, message: str) -> NoReturn:
        raise UserError(f"{message}; `{self.prog} --help` says more")
