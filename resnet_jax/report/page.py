"""The report of some runs: a table, curves, and a page that opens offline and says where each number comes from."""

import base64
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from resnet_jax.errors import UserError
from resnet_jax.report.curves import plot_curves
from resnet_jax.report.run_data import Run
from resnet_jax.report.table import runs_grid, to_markdown

_MEDIA_TYPES = {".svg": "image/svg+xml", ".png": "image/png"}
_RECORDS = ("result.json", "config.json", "metrics.jsonl")


def write_report(
    title: str, intro: str, runs: Sequence[Run], out_dir: str | Path, details: Mapping[str, str] | None = None
) -> dict[str, Path]:
    """Writes table.md, curves.png, curves.svg and index.html. The same runs give the same bytes.

    Args:
      title: of the page.
      intro: plain text; an empty line begins a new paragraph.
      runs: the table's rows in order; their groups are the figure's panels.
      out_dir: made if it does not exist.
      details: what is true of the whole report, such as the command that wrote it; shown under the intro.

    Returns:
      The four paths by file name.

    Raises:
      UserError: if `out_dir` cannot be written to.
    """
    out = Path(out_dir).expanduser()
    paths = {name: out / name for name in ("table.md", "curves.png", "curves.svg", "index.html")}
    try:
        out.mkdir(parents=True, exist_ok=True)
        paths["table.md"].write_text(to_markdown(runs), encoding="utf-8")
        plot_curves(runs, paths["curves.png"], paths["curves.svg"])
        html = render_template(
            "page.html.j2",
            title=title,
            paragraphs=[" ".join(paragraph.split()) for paragraph in intro.split("\n\n") if paragraph.strip()],
            details=details or {},
            headings=runs_grid(runs).headings,
            rows=runs_grid(runs).texts(),
            finished=[run.result is not None for run in runs],
            figure=data_uri(paths["curves.svg"]),
            figure_text="Error over iterations: "
            + ", ".join(f"{run.label} ({run.group})" for run in runs if run.result),
            provenance=[_provenance(run, out) for run in runs],
        )
        paths["index.html"].write_text(html, encoding="utf-8")
    except OSError as error:
        raise UserError(f"cannot write the report to {out}: {error.strerror or error}") from error
    return paths


def render_template(name: str, **values: Any) -> str:
    """Returns the HTML of a template in this folder; every value is escaped."""
    # An environment per page: jinja2 caches templates in it, which a report written once has no use for.
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent), autoescape=True, undefined=StrictUndefined,
        trim_blocks=True, lstrip_blocks=True,
    )  # fmt: skip
    return environment.get_template(name).render(**values)


def data_uri(path: Path) -> str:
    """Returns a picture as a `data:` address. In an <img>, an SVG cannot run scripts and its ids clash with nothing."""
    return f"data:{_MEDIA_TYPES[path.suffix]};base64,{base64.b64encode(path.read_bytes()).decode()}"


def record_links(run: Run, page_folder: Path) -> dict[str, str]:
    """Returns the addresses of a run's records, by file name, relative to the page's folder."""
    folder = Path(os.path.relpath(run.workdir, page_folder)).as_posix()
    return {name: quote(f"{folder}/{name}") for name in _RECORDS if (run.workdir / name).exists()}


def _provenance(run: Run, page_folder: Path) -> dict[str, Any]:
    """Returns where a run's numbers come from: label, group, details (empty if it is not finished), and links."""
    details: dict[str, str] = {}
    if (result := run.result) is not None:
        details = {
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
    return {"label": run.label, "group": run.group, "details": details, "links": record_links(run, page_folder)}


def _listed(values: Mapping[str, Any]) -> str:
    return ", ".join(f"{name}\N{NO-BREAK SPACE}{value}" for name, value in values.items())
