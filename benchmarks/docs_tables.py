"""Measured tables in docs/, each between two markers that name the command which makes it."""

import datetime
from collections.abc import Sequence
from pathlib import Path

from resnet_jax.errors import UserError
from resnet_jax.training import provenance


def table(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table, the first column to the left and the others to the right."""
    lines = [headings, ["---", *["---:"] * (len(headings) - 1)], *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def machine() -> str:
    """What computes here, and how many of it: "2 cores of AMD EPYC", "1 x NVIDIA H200"."""
    import jax

    hardware = provenance.hardware(jax.devices())
    if hardware["platform"] == "cpu":
        return f"{hardware['cpu_cores']} cores of {hardware['cpu']}"
    return f"{hardware['devices']} x {hardware['device']}"


def measured_on() -> str:
    """Machine, versions and date of what is measured now."""
    versions = provenance.versions()
    return (
        f"Measured on {machine()}, Python {versions['python']}, JAX {versions['jax']}, commit {provenance.commit()}, "
        f"{datetime.date.today().isoformat()}."
    )


def write_between(path: Path, name: str, text: str) -> None:
    """Replaces what stands between `<!-- begin NAME -->` and `<!-- end NAME -->`.

    Raises:
      UserError: if the page lacks the markers.
    """
    begin, end = f"<!-- begin {name} -->\n", f"<!-- end {name} -->"
    page = path.read_text()
    before, found, rest = page.partition(begin)
    _, closed, after = rest.partition(end)
    if not found or not closed:
        raise UserError(f"{path} lacks the markers {begin.strip()} and {end}")
    path.write_text(f"{before}{begin}{text.strip()}\n{end}{after}")
