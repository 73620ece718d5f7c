"""Converters for argparse, for the commands of experiments and benchmarks."""

import argparse
from typing import Any


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
