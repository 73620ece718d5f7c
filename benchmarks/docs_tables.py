"""Writes measured tables into docs/, each between two markers with the name of its benchmark."""

import datetime
from collections.abc import Sequence
from pathlib import Path

from resnet_jax.errors import UserError
from resnet_jax.report.grid import make_grid, to_markdown
from resnet_jax.report.page import machine as hardware_name
from resnet_jax.training.result import commit, hardware, versions


def table(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Returns a Markdown table, the first column to the left and the others to the right."""
    return to_markdown(make_grid(headings, rows), padded=False).rstrip("\n")


def machine() -> str:
    """Returns what computes here, and how many: "2 cores of AMD EPYC", "1 x NVIDIA H200"."""
    import jax

    return hardware_name(hardware(jax.devices()))


def measured_on() -> str:
    """Returns a sentence with the machine, the versions and the date."""
    found = versions()
    return (
        f"Measured on {machine()}, Python {found['python']}, JAX {found['jax']}, commit {commit()}, "
        f"{datetime.date.today().isoformat()}."
    )


def write_between(path: Path, name: str, text: str) -> None:
    """Replaces a block of a page; see `replaced`."""
    path.write_text(replaced(path.read_text(), name, text, path))


def replaced(page: str, name: str, text: str, path: str | Path) -> str:
    """Returns a page with other text between `<!-- begin NAME -->` and `<!-- end NAME -->`.

    Raises:
      UserError: if the page, which is that of `path`, lacks the markers.
    """
    begin, end = f"<!-- begin {name} -->\n", f"<!-- end {name} -->"
    before, found, rest = page.partition(begin)
    _, closed, after = rest.partition(end)
    if not found or not closed:
        raise UserError(f"{path} lacks the markers {begin.strip()} and {end}")
    return f"{before}{begin}{text.strip()}\n{end}{after}"
