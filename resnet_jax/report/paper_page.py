"""The page of a paper's tables and figures, on which every number of ours links to the record of its run."""

import dataclasses
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from markupsafe import Markup

from resnet_jax.report.grid import Grid
from resnet_jax.report.page import data_uri, record_links, render_template
from resnet_jax.report.run_data import Run


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


def write_paper_page(path: Path, title: str, intro: Sequence[str], sections: Sequence[Section]) -> None:
    """Writes the page. It needs no other file and no network; its only links are to the run folders.

    Args:
      path: of the page. Links to run folders are relative to it.
      title: of the page.
      intro: its first paragraphs.
      sections: in their order.
    """
    html = render_template(
        "paper.html.j2",
        title=title,
        paragraphs=intro,
        sections=[_section(section, path.parent) for section in sections],
        script=Markup(Path(__file__).with_name("chart.js").read_text(encoding="utf-8")),
    )
    path.write_text(html, encoding="utf-8")


def _section(section: Section, folder: Path) -> dict[str, Any]:
    """Returns what the template shows of a section."""
    labels = {cell.runs: line.cells[0].text for line in section.grid.lines for cell in line.cells if cell.runs}
    records, links = [], {}
    for key, runs in section.runs.items():
        anchor = _anchor(f"{section.name}-{key}")
        found = [_record(run, folder) for run in runs]
        records.append({"anchor": anchor, "label": labels.get(key, key), "runs": found})
        single = found[0]["links"].get("result.json") if len(found) == 1 else None
        links[key] = single or f"#{anchor}"
    return {
        "name": section.name,
        "anchor": _anchor(section.name),
        "title": section.title,
        "state": section.state,
        "grid": section.grid,
        "charts": section.charts,
        "pictures": [data_uri(picture) for picture in section.pictures],
        "records": records,
        "links": links,
    }


def _record(run: Run, folder: Path) -> dict[str, Any]:
    """Returns a run in one line, and the addresses of its files."""
    links = record_links(run, folder)
    r = run.result
    if r is None:
        return {"text": f"{run.workdir.name}: not finished", "links": links}
    parts = (
        f"{r.evaluated_on.replace('_', '-')} error {r.metrics['test_error']:.2f} %",
        f"{r.steps:,} steps",
        machine(r.hardware),
        f"JAX {r.versions.get('jax', 'unknown')}",
        f"commit {r.commit}",
        r.finished[:10],
    )
    text = f"seed {r.seed}: {', '.join(parts)}"
    return {"text": text, "links": links}


def machine(hardware: Mapping[str, Any]) -> str:
    """Returns a run's hardware in a few words."""
    if hardware.get("platform") == "cpu":
        return f"{hardware.get('cpu_cores', '?')} cores of {hardware.get('cpu', 'a CPU')}"
    return f"{hardware.get('devices', '?')} x {hardware.get('device', hardware.get('platform', 'unknown'))}"


def _anchor(text: str) -> str:
    return re.sub(r"[^A-Za-z0-9_.-]", "-", text)
