"""Converters of argparse for commands that are no verbs of `python -m resnet_jax`."""

import argparse
from typing import Any


def number(kind: type, what: str, least: float) -> Any:
    """A converter for argparse: a number of a kind, `least` or more, called `what` in its complaint."""

    def convert(text: str) -> Any:
        try:
            value = kind(text)
        except ValueError:
            value = None
        if value is None or not least <= value < float("inf"):
            raise argparse.ArgumentTypeError(f"{text!r} must be {what}")
        return value

    return convert
