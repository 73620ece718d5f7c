"""A page of tables and figures that opens offline, on which every number of ours links to the record of its run."""

import base64
import dataclasses
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from resnet_jax.report.grid import Grid
from resnet_jax.report.run_data import Run
from resnet_jax.tasks.choose import task_type
from resnet_jax.tasks.task import heading
from resnet_jax.training.result import Result

_RECORDS = ("result.json", "config.json", "metrics.jsonl")


@dataclasses.dataclass(frozen=True)
class Section:
    """A table or figure on the page.

    Attributes:
      name, title: of it.
      state: how many of its runs are done, in words.
      grid: its table.
      runs: by the keys of the grid's cells.
      charts: see `charts.make_chart`.
      pictures: SVG files that are copied into the page.
    """

    name: str
    title: str
    state: str
    grid: Grid
    runs: Mapping[str, Sequence[Run]]
    charts: Sequence[Mapping[str, Any]] = ()
    pictures: Sequence[Path] = ()


def write_page(path: Path, title: str, intro: Sequence[str], sections: Sequence[Section]) -> None:
    """Writes the page. It needs no other file and no network; its only links are to the run folders.

    The same sections give the same bytes.

    Args:
      path: of the page. Links to run folders are relative to it.
      title: of the page.
      intro: its first paragraphs.
      sections: in their order.
    """
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent), autoescape=True, undefined=StrictUndefined,
        trim_blocks=True, lstrip_blocks=True,
    )  # fmt: skip
    charts = any(section.charts for section in sections)
    html = environment.get_template("page.html.j2").render(
        title=title,
        paragraphs=intro,
        sections=[_section(section, path.parent) for section in sections],
        script=Markup(Path(__file__).with_name("chart.js").read_text(encoding="utf-8")) if charts else "",
    )
    path.write_text(html, encoding="utf-8")


def _section(section: Section, folder: Path) -> dict[str, Any]:
    """Returns what the template shows of a section."""
    labels = {cell.runs: line.cells[0].text for line in section.grid.lines for cell in line.cells if cell.runs}
    records, links = [], {}
    for key, runs in section.runs.items():
        anchor = _anchor(f"{section.name}-{key}")
        found = [{"text": _record(run), "links": _links(run, folder)} for run in runs]
        records.append({"anchor": anchor, "label": labels.get(key, key), "runs": found})
        single = _links(runs[0], folder).get("result.json") if len(runs) == 1 else None
        links[key] = single or f"#{anchor}"
    return {
        "name": section.name,
        "anchor": _anchor(section.name),
        "title": section.title,
        "state": section.state,
        "grid": section.grid,
        "charts": section.charts,
        "pictures": [_data_uri(picture) for picture in section.pictures],
        "records": records,
        "links": links,
    }


def _data_uri(svg: Path) -> str:
    """Returns a picture as a `data:` address. In an <img>, an SVG cannot run scripts and its ids clash with nothing."""
    return f"data:image/svg+xml;base64,{base64.b64encode(svg.read_bytes()).decode()}"


def _links(run: Run, page_folder: Path) -> dict[str, str]:
    """Returns the addresses of a run's records, by file name, relative to the page's folder."""
    folder = Path(os.path.relpath(run.workdir, page_folder)).as_posix()
    return {name: quote(f"{folder}/{name}") for name in _RECORDS if (run.workdir / name).exists()}


def _record(run: Run) -> str:
    """Returns where a run's numbers come from."""
    r = run.result
    if r is None:
        return f"{run.workdir.name}: not finished"
    parts = (
        _tested(r),
        f"{r.model} on {r.dataset}",
        f"{r.steps:,} steps of {r.batch_size:,} images",
        *(f"{name.replace('_', ' ')} {value}" for name, value in (r.hardware | r.versions).items()),
        f"config {r.config_hash}",
        f"commit {r.commit}",
        r.finished,
    )
    return f"seed {r.seed}: {', '.join(parts)}"


def _tested(result: Result) -> str:
    """Returns "test error 8.27 %", or what else the task chooses by."""
    task = task_type(result.task)
    name, value = task.best_metric, result.metrics[task.best_metric]
    return f"{heading(name, result.evaluated_on)} {value:.2f} {task.shown[name]}"


def machine(hardware: Mapping[str, Any]) -> str:
    """Returns a run's hardware in a few words."""
    if hardware.get("platform") == "cpu":
        return f"{hardware.get('cpu_cores', '?')} cores of {hardware.get('cpu', 'a CPU')}"
    return f"{hardware.get('devices', '?')} x {hardware.get('device', hardware.get('platform', 'unknown'))}"


def _anchor(text: str) -> str:
    return re.sub(r"[^A-Za-z0-9_.-]", "-", text)
