"""Writes tables and figures with our runs: Markdown, CSV, LaTeX, PNG, SVG, and a page to read."""

from collections.abc import Sequence
from pathlib import Path

from matplotlib.figure import Figure

from experiments.experiment import ANALYSES, Row
from experiments.registry import PAPERS
from experiments.run_index import seedless_hash
from experiments.tables import Filled
from resnet_jax.errors import counted, writing
from resnet_jax.report.analysis.figures import draw_analysis, is_measured
from resnet_jax.report.charts import make_chart
from resnet_jax.report.comparison import Entry, to_csv, to_grid
from resnet_jax.report.curves import draw_curves, draw_loss_and_error
from resnet_jax.report.grid import Grid, to_latex, to_markdown
from resnet_jax.report.page import Section, machine, write_page
from resnet_jax.report.series import Series, make_series
from resnet_jax.report.style import save


def render(name: str, filled: Sequence[Filled], out: Path, command: str) -> dict[str, Path]:
    """Writes each table and figure, and one page of all of them.

    Args:
      name: of the page: "he2015", or that of the one table or figure.
      filled: tables and figures.
      out: folder, made if there is none.
      command: what was typed to get all this.

    Returns:
      The paths by file name.

    Raises:
      UserError: if `out` cannot be written to, or a record cannot be read.
    """
    with writing(out):
        out.mkdir(parents=True, exist_ok=True)
        paths: dict[str, Path] = {}
        for one in filled:
            paths |= _write_files(one, out)
        page = out / f"{name}.html"
        heading = _heading(filled)
        intro = [
            "The paper's numbers beside ours. Each number of ours leads to the record of its run, or to the list of "
            "the runs that it sums up; rows without runs are empty.",
            f"Written by: {command}",
        ]
        write_page(page, heading, intro, [_section(one, paths) for one in filled])
    return {**paths, page.name: page}


def _heading(filled: Sequence[Filled]) -> str:
    papers = {one.experiment.name.split(".")[0] for one in filled}
    if len(papers) > 1:
        return "Residual nets: tables and figures"
    return PAPERS.get(papers.pop(), "Analyses of residual nets")


def grid(filled: Filled) -> Grid:
    """Returns the table with its notes: the experiment's, changed fields, and the runs' machines."""
    notes = [filled.experiment.note] if filled.experiment.note else []
    if filled.changes:
        fields = ", ".join(f"{field}={value}" for field, value in filled.changes.items())
        notes.append(f"Not the paper's setting: all runs have {fields}.")
    notes += filled.left_out
    return to_grid(filled.entries, [*notes, *_machines(filled)])


def state(filled: Filled) -> str:
    """Returns how many runs are done as the paper did, and how many others, in words.

    Rows that share their runs, as in figure 6, count once.
    """
    rows = needed(filled)
    wanted = sum(made for _, _, made in rows)
    if not wanted:
        return "computed" if not filled.experiment.metric else "nothing to run"
    done = sum(min(found, made) for _, found, made in rows)
    others = {run.workdir for entry in filled.entries if not entry.full for run in filled.runs.get(entry.key, ())}
    text = f"{done} of {counted(wanted, 'run')}" + (f", {counted(len(others), 'other')}" if others else "")
    if filled.experiment.form in ANALYSES:
        folders = {folder for entry in filled.entries for folder in measured(filled, entry)}
        text += f"; {filled.experiment.form} measured in {len(folders)}"
    return text


def needed(filled: Filled) -> list[tuple[Row, int, int]]:
    """Returns a row for each different config, how many runs are done as the paper did, and how many it made."""
    rows = {row.name: row for row in filled.experiment.rows}
    found: dict[str, tuple[Row, int, int]] = {}
    for entry in filled.entries:
        if entry.wanted:
            row = rows[entry.name]
            key = seedless_hash(row, 1.0, filled.changes)
            _, done, wanted = found.get(key, (row, 0, 0))
            found[key] = (row, max(done, entry.done if entry.full else 0), max(wanted, entry.wanted))
    return list(found.values())


def _write_files(filled: Filled, out: Path) -> dict[str, Path]:
    """Writes the table and pictures of one, and returns the paths by file name."""
    experiment, table = filled.experiment, grid(filled)
    texts = {
        ".md": to_markdown(table, f"{experiment.name}: {experiment.title}"),
        ".csv": to_csv(filled.entries),
        ".tex": to_latex(table, experiment.title),
    }
    paths = {f"{experiment.name}{ending}": out / f"{experiment.name}{ending}" for ending in texts}
    for ending, text in texts.items():
        paths[f"{experiment.name}{ending}"].write_text(text, encoding="utf-8")
    if experiment.form == "table":
        return paths
    for suffix, _, _ in lengths(filled):
        png, svg = (out / f"{experiment.name}{suffix}{ending}" for ending in (".png", ".svg"))
        save(draw(filled, suffix), png, svg)
        paths |= {png.name: png, svg.name: svg}
    return paths


def draw(filled: Filled, suffix: str = "") -> Figure:
    """Returns the figure of the runs of one length.

    Args:
      filled: a figure with its runs.
      suffix: which length: one of those in `lengths`, the paper's by default.

    Raises:
      UserError: if what an analysis found cannot be read.
    """
    experiment = filled.experiment
    mark, entries = next((mark, entries) for found, mark, entries in lengths(filled) if found == suffix)
    title = experiment.title + mark
    if experiment.form in ANALYSES:
        folders = [measured(filled, entry) for entry in entries]
        return draw_analysis(experiment.form, [found for found in folders if found], title)
    series = _series(filled, entries)
    if experiment.form == "loss_and_error":
        return draw_loss_and_error(series, _groups(filled), title, _evaluated(entries))
    return draw_curves(series, _groups(filled), experiment.form, title, _evaluated(entries))


def measured(filled: Filled, entry: Entry) -> list[Path]:
    """Returns the folders of an entry's runs in which the figure's analysis was made."""
    form = filled.experiment.form
    return [run.workdir for run in filled.runs.get(entry.key, ()) if is_measured(run.workdir, form)]


def _section(filled: Filled, paths: dict[str, Path]) -> Section:
    experiment = filled.experiment
    form = experiment.form if experiment.form in ("thin_curves", "train_test") else "curves"
    charts = []
    for _, mark, entries in lengths(filled):
        if series := _series(filled, entries):
            training = {"curves": "dashed: training", "thin_curves": "thin: training"}.get(form)
            lines = f"; {training}, bold: {_evaluated(entries)}" if training else ""
            caption = f"Error over iterations, means of the runs{mark}{lines}."
            charts.append(make_chart(series, _groups(filled), form, caption, _evaluated(entries)))
    # The page's own curves show errors alone; what a figure shows besides stands there as a picture.
    pictured = experiment.form in (*ANALYSES, "loss_and_error")
    pictures = [paths[f"{experiment.name}{suffix}.svg"] for suffix, _, _ in lengths(filled)] if pictured else []
    return Section(experiment.name, experiment.title, state(filled), grid(filled), filled.runs, charts, pictures)


def lengths(filled: Filled) -> list[tuple[str, str, list[Entry]]]:
    """Returns what is drawn apart: suffix of file names, words for the title, entries; the paper's length first."""
    # By length, the paper's first, then the longest; each tested on the test set ahead of held out.
    found_kinds = {(entry.steps_scale, entry.held_out) for entry in filled.entries} | {(1.0, False)}
    kinds = sorted(found_kinds, key=lambda kind: (kind != (1.0, False), -kind[0], kind[1]))
    found = []
    for scale, held_out in kinds:
        suffix = ("" if scale == 1 else f"-{100 * scale:.3g}percent") + ("-held-out" if held_out else "")
        mark = "" if scale == 1 else f", {100 * scale:.3g} % of the paper's iterations"
        entries = [e for e in filled.entries if (e.steps_scale, e.held_out) == (scale, held_out)]
        mark += f", {_evaluated(entries)} error" if held_out else ""
        found.append((suffix, mark, entries))
    return found


def _series(filled: Filled, entries: Sequence[Entry]) -> list[Series]:
    """Returns the entries' curves of errors. A detector's runs have precision in their place, and get none."""
    found = []
    for entry in entries:
        runs = [run for run in filled.runs.get(entry.key, ()) if run.has_errors]
        found.append(make_series(entry.label, entry.group, runs))
    return [series for series in found if series is not None]


def _evaluated(entries: Sequence[Entry]) -> str:
    """Returns what entries of one kind, see `lengths`, were tested on, in words."""
    return entries[0].evaluated_on.replace("_", "-") if entries else "test"


def _groups(filled: Filled) -> list[str]:
    return list(dict.fromkeys(entry.group for entry in filled.entries))


def _machines(filled: Filled) -> list[str]:
    """Returns a sentence on the machines and commits of the finished runs, if there are any."""
    results = [run.result for runs in filled.runs.values() for run in runs if run.result is not None]
    if not results:
        return []
    machines = sorted({f"{machine(r.hardware)}, JAX {r.versions.get('jax', 'unknown')}" for r in results})
    commits = sorted({r.commit for r in results})
    return [f"Our runs: {'; '.join(machines)}; commit {', '.join(commits)}."]
