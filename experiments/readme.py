"""Writes the tables of README.md and docs/ that follow from the committed run records and the code alone."""

import dataclasses
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from pathlib import Path

from benchmarks.docs_tables import replaced
from experiments import ROOT, ablation, registry
from experiments.experiment import ANALYSES
from experiments.outputs import draw, lengths, measured
from experiments.run_index import index_runs
from experiments.tables import Filled, fill
from resnet_jax.analysis.run_files import read_settings
from resnet_jax.models.registry import VARIANTS
from resnet_jax.models.summary import variant_summary
from resnet_jax.report.analysis.figures import FIGURES
from resnet_jax.report.comparison import to_grid
from resnet_jax.report.draw_metrics import draw_metrics
from resnet_jax.report.grid import make_grid, to_markdown
from resnet_jax.report.page import machine
from resnet_jax.report.style import save
from resnet_jax.report.table import runs_grid
from resnet_jax.tasks.choose import task_type
from resnet_jax.tasks.task import spelt
from resnet_jax.training.result import Result
from resnet_jax.training.run_record import RunRecord

DIGITS = Path("results/digits_ablation")
PAPERS = Path("results/papers")

#: Runs of recipes for other tasks: the folder of their records, and the page that shows them.
RECIPES = {"bccd": "docs/detection.md", "nuclei": "docs/segmentation.md"}

#: The tables and figures of the papers that docs/results.md shows, as far as runs of their rows are published.
SHOWN = ("he2015.figure6", "he2015.table6", "he2015.figure7", "veit2016.lesion", "li2018.loss_surface")

NONE_PUBLISHED = "No runs of the papers' tables are published yet: those before were of earlier recipes."


def ablation_table(root: Path) -> str:
    """Returns the digits ablation as a table, with the machine that it ran on."""
    runs = ablation.runs(root / DIGITS)
    results = [run.result for run in runs if run.result is not None]
    table = to_markdown(runs_grid(runs))
    return f"{table}\n{measured_on(results)}" if results else table


def measured_on(results: Iterable[Result]) -> str:
    """Returns a sentence on the machines, versions, commits, dates and seeds of some runs."""
    found = sorted(results, key=lambda r: r.finished)
    by_place: dict[str, list[Result]] = {}
    for r in found:
        place = f"{machine(r.hardware)}, Python {r.versions['python']}, JAX {r.versions['jax']}"
        by_place.setdefault(place, []).append(r)
    places = []
    for place, runs in by_place.items():
        commits = dict.fromkeys(r.commit for r in runs)
        days = dict.fromkeys(r.finished[:10] for r in (runs[0], runs[-1]))
        places.append(f"{place}, commit{'s' * (len(commits) > 1)} {', '.join(commits)}, {' to '.join(days)}")
    seeds = sorted({r.seed for r in found})
    return f"Measured on {'; '.join(places)}; seed{'s' * (len(seeds) > 1)} {', '.join(map(str, seeds))}."


def published(root: Path, names: Sequence[str] = SHOWN) -> list[Filled]:
    """Returns the named tables and figures with their published runs, without rows that have none."""
    index = index_runs(root / PAPERS)
    found = []
    for name in names:
        filled = fill(registry.load(name), index)
        entries = tuple(entry for entry in filled.entries if entry.done)
        if filled.experiment.form in ANALYSES:
            entries = tuple(entry for entry in entries if measured(filled, entry))
        if entries:
            found.append(dataclasses.replace(filled, entries=entries))
    return found


def paper_tables(root: Path, names: Sequence[str] = SHOWN, to_root: str = "../") -> str:
    """Returns the published runs of the named tables and figures, with what they ran on and their curves.

    `to_root` leads from the page to the root of the checkout.
    """
    parts = []
    for filled in published(root, names):
        title = f"{filled.experiment.name}: {filled.experiment.title}"
        keys = {entry.key for entry in filled.entries}
        runs = [run for key, members in filled.runs.items() if key in keys for run in members]
        results = {run.workdir: run.result for run in runs if run.result is not None}
        # The nets' errors stand under figure 6.
        is_analysis = filled.experiment.form in ANALYSES
        shown = analysis_settings(filled) if is_analysis else to_markdown(to_grid(filled.entries))
        parts += [f"**{title}**", shown, measured_on(results.values())]
        parts += [
            f"![{filled.experiment.title}{mark}]({to_root}{path.as_posix()})" for path, mark, _ in pictures(filled)
        ]
    return "\n\n".join(part.strip() for part in parts) or NONE_PUBLISHED


def analysis_settings(filled: Filled) -> str:
    """Returns the nets of a figure that analyses them, how it was done, and the note on the paper's figure."""
    nets: dict[str, list[str]] = {}
    for entry in filled.entries:
        length = entry.marked.removeprefix(entry.label)  # " (10 % of the paper's iterations)"
        for folder in measured(filled, entry):
            settings = read_settings(folder / FIGURES[filled.experiment.form][0])
            values = ", ".join(f"{name}={value}" for name, value in settings.items() if name != "step")
            nets.setdefault(length + (f": {values}" if values else ""), []).append(entry.label)
    sentences = [f"{', '.join(dict.fromkeys(labels))}{how}." for how, labels in nets.items()]
    return " ".join([*sentences, filled.experiment.note]).strip()


def pictures(filled: Filled) -> list[tuple[Path, str, str]]:
    """Returns (path under the root, mark in the title, suffix of the file) of a picture for each length of the runs."""
    if filled.experiment.form == "table":
        return []
    name = filled.experiment.name
    return [(PAPERS / f"{name}{suffix}.png", mark, suffix) for suffix, mark, entries in lengths(filled) if entries]


def recipe_runs(root: Path, name: str) -> dict[str, Result]:
    """Returns the results of the published runs of a recipe, by their folder's name in words."""
    found = {}
    for folder in sorted((root / "results" / name).glob("*/")):
        if folder.is_dir() and (result := RunRecord(folder).result()) is not None:
            found[folder.name] = result
    return found


def recipe_metrics(result: Result) -> list[str]:
    """Returns the names of what a run's evaluations measured in percent, that by which the best is chosen first."""
    best = task_type(result.task).best_metric
    return [best, *(name for name in result.metrics if name.startswith("test_") and name not in (best, "test_loss"))]


def recipe_table(root: Path, name: str) -> str:
    """Returns the published runs of a recipe with all their metrics, in percent, and their curves."""
    runs = recipe_runs(root, name)
    if not runs:
        return f"No run of configs/{name}.py is published."
    names = recipe_metrics(next(iter(runs.values())))
    headings = ["start", "steps", *(spelt(metric.removeprefix("test_")) for metric in names), "parameters", "seconds"]
    rows = [
        [folder.replace("_", " "), f"{run.steps:,}", *(f"{run.metrics[metric]:.1f}" for metric in names),
         f"{run.params:,}", f"{run.seconds:,.0f}"] for folder, run in runs.items()
    ]  # fmt: skip
    table = to_markdown(make_grid(headings, rows)).strip()
    title = f"{name} over iterations: {', '.join(runs)}".replace("_", " ")
    return f"{table}\n\n{measured_on(runs.values())}\n\n![{title}](../results/{name}/curves.png)"


def net_table(root: Path) -> str:
    """Returns the table of all named nets with depth, parameters and multiply-adds."""
    lines = ["| net | image | depth | parameters | multiply-adds | defined in |", "|:--|--:|--:|--:|--:|:--|"]
    for name, variant in VARIANTS.items():
        s = variant_summary(name)
        lines.append(
            f"| `{name}` | {s.image_size} | {s.depth} | {s.params:,} | {s.flops / 1e9:.3f} G | {variant.source} |"
        )
    return "\n".join(lines)


#: (page, block, what writes the text between the block's markers).
BLOCKS: tuple[tuple[str, str, Callable[[Path], str]], ...] = (
    ("README.md", "digits_ablation", ablation_table),
    ("README.md", "figure6", partial(paper_tables, names=("he2015.figure6",), to_root="")),
    ("docs/results.md", "papers", paper_tables),
    ("docs/nets.md", "nets", net_table),
    *((page, name, partial(recipe_table, name=name)) for name, page in RECIPES.items()),
)


def regenerated(root: Path = ROOT) -> dict[str, str]:
    """Returns the text of each page of `BLOCKS` with its blocks written anew.

    Raises:
      UserError: if a page lacks the markers of a block.
    """
    pages: dict[str, str] = {}
    for page, block, write in BLOCKS:
        text = pages.get(page) or (root / page).read_text()
        pages[page] = replaced(text, block, write(root), page)
    return pages


def update(root: Path = ROOT) -> None:
    """Writes the tables of README.md and docs/, and the curves beside the records."""
    pages = regenerated(root)  # fails before anything is written
    if (root / DIGITS).is_dir():
        save(ablation.curves(ablation.runs(root / DIGITS)), root / DIGITS / "curves.png")
    for name in RECIPES:
        if not (runs := recipe_runs(root, name)):
            continue
        folders = {folder.replace("_", " "): root / "results" / name / folder for folder in runs}
        save(draw_metrics(folders, recipe_metrics(next(iter(runs.values())))), root / "results" / name / "curves.png")
    for filled in published(root):
        for path, _, suffix in pictures(filled):
            save(draw(filled, suffix), root / path)
    for page, text in pages.items():
        (root / page).write_text(text)
