"""One HTML page that opens offline: text, table, figure, and where each number comes from."""

import base64
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from resnet_jax.report import table
from resnet_jax.report.run_data import Run

_MEDIA_TYPES = {".svg": "image/svg+xml", ".png": "image/png"}
_RECORDS = ("result.json", "config.json", "metrics.jsonl")


def write_page(
    path: Path, title: str, intro: str, runs: Sequence[Run], figure: Path, facts: Mapping[str, str] | None = None
) -> None:
    """Writes the page. It needs no other file, script or network; only its links to the run folders lead elsewhere.

    Args:
      path: of the page. Links to the runs' folders are relative to it.
      intro: plain text; an empty line begins a new paragraph.
      runs: the table's rows in order.
      figure: an .svg or .png file, which is copied into the page.
      facts: what is true of the whole report, such as the command that wrote it; shown under the intro.
    """
    # An environment per page: jinja2 caches templates in it, which a report written once has no use for.
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    html = environment.get_template("page.html.j2").render(
        title=title,
        paragraphs=[" ".join(paragraph.split()) for paragraph in intro.split("\n\n") if paragraph.strip()],
        facts=facts or {},
        headings=table.headings(),
        rows=table.rows(runs),
        finished=[run.result is not None for run in runs],
        figure=data_uri(figure),
        figure_text="Error over iterations: " + ", ".join(f"{run.label} ({run.group})" for run in runs if run.result),
        provenance=[provenance(run, path.parent) for run in runs],
    )
    path.write_text(html, encoding="utf-8")


def data_uri(path: Path) -> str:
    """A picture as a `data:` address. In an <img>, an SVG cannot run scripts and its ids clash with nothing."""
    return f"data:{_MEDIA_TYPES[path.suffix]};base64,{base64.b64encode(path.read_bytes()).decode()}"


def provenance(run: Run, page_folder: Path) -> dict[str, Any]:
    """Where a run's numbers come from.

    Returns:
      label, group: the run's.
      facts: name to text; empty if the run is not finished.
      links: file name to its address relative to `page_folder`, for the records that there are.
    """
    folder = Path(os.path.relpath(run.workdir, page_folder)).as_posix()
    links = {name: quote(f"{folder}/{name}") for name in _RECORDS if (run.workdir / name).exists()}
    facts: dict[str, str] = {}
    if (result := run.result) is not None:
        facts = {
            "model": f"{result.model} on {result.dataset}",
            "config": result.config_hash,
            "commit": result.commit,
            "seed": str(result.seed),
            "steps": f"{result.steps:,}",
            "batch size": f"{result.batch_size:,}",
            "finished": result.finished,
            "hardware": _listed({name.replace("_", " "): value for name, value in result.hardware.items()}),
            "versions": _listed(result.versions),
        }
    return {"label": run.label, "group": run.group, "facts": facts, "links": links}


def _listed(values: Mapping[str, Any]) -> str:
    return ", ".join(f"{name}\N{NO-BREAK SPACE}{value}" for name, value in values.items())
