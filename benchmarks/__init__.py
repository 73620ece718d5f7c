"""Measurements that docs/ reports: `python -m benchmarks NAME`."""

import sys
from pathlib import Path

#: The checkout, in which child processes start.
ROOT = Path(__file__).resolve().parents[1]


def note(text: str) -> None:
    """Prints progress to stderr."""
    print(text, file=sys.stderr, flush=True)
