"""The papers' tables and figures: rows, numbers, and the command that runs and writes them."""

from pathlib import Path

#: The checkout, from which `python -m experiments...` is started.
ROOT = Path(__file__).resolve().parents[1]
