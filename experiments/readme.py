"""The README's tables and pictures, from the committed run records alone."""

import dataclasses
import re
from collections.abc import Callable, Iterable
from pathlib import Path

from experiments import ablation, registry
from experiments.outputs import draw, lengths
from experiments.run_index import index_runs
from experiments.tables import Filled, fill
from resnet_jax.errors import UserError
from resnet_jax.models.registry import VARIANTS
from resnet_jax.models.summary import variant_summary
from resnet_jax.report.comparison import to_grid
from resnet_jax.report.curves import plot_curves
from resnet_jax.report.grid import to_markdown
from resnet_jax.report.paper_page import machine
from resnet_jax.report.style import save
from resnet_jax.report.table import to_markdown as to_ablation_table
from resnet_jax.training.record import Result

ROOT = Path(__file__).resolve().parents[1]
DIGITS = Path("results/digits_ablation")
PAPERS = Path("results/papers")

#: The tables and figures of the papers that the README shows, as far as there are published runs of their rows.
SHOWN = ("he2015.figure6",)


def ablation_table(root: Path) -> str:
    """The digits ablation, and the machine that it ran on."""
    runs = ablation.runs(root / DIGITS)
    results = [run.result for run in runs if run.result is not None]
    table = to_ablation_table(runs)
    return f"{table}\n{measured_on(results)}" if results else table


def measured_on(results: Iterable[Result]) -> str:
    """A sentence on what runs ran on, with which versions, when and from which commit."""
    found = list(results)
    machines = {f"{machine(r.hardware)}, Python {r.versions['python']}, JAX {r.versions['jax']}, commit {r.commit}, "
                f"{r.finished[:10]}" for r in found}  # fmt: skip
    seeds = sorted({r.seed for r in found})
    return f"Measured on {'; '.join(sorted(machines))}; seed{'s' * (len(seeds) > 1)} {', '.join(map(str, seeds))}."


def published(root: Path) -> list[Filled]:
    """The papers' tables and figures with the published runs: those rows alone that have any."""
    index = index_runs(root / PAPERS)
    found = []
    for name in SHOWN:
        filled = fill(registry.load(name), index)
        entries = tuple(entry for entry in filled.entries if entry.done)
        if entries:
            found.append(dataclasses.replace(filled, entries=entries))
    return found


def paper_tables(root: Path) -> str:
    """The published runs of the papers' tables and figures, with what they ran on, and their curves."""
    parts = []
    for filled in published(root):
        title = f"{filled.experiment.name}: {filled.experiment.title}"
        table = to_markdown(to_grid(filled.entries), title).replace("## ", "**", 1).replace("\n", "**\n", 1)
        results = {run.workdir: run.result for runs in filled.runs.values() for run in runs if run.result is not None}
        parts += [table, measured_on(results.values())]
        parts += [f"![{filled.experiment.title}{mark}]({path.as_posix()})" for path, mark, _ in pictures(filled)]
    return "\n\n".join(part.strip() for part in parts) or "None is published yet."


def pictures(filled: Filled) -> list[tuple[Path, str, str]]:
    """Of each length of the published runs: the picture's path under the root, what marks it, its file's suffix."""
    name = filled.experiment.name
    return [(PAPERS / f"{name}{suffix}.png", mark, suffix) for suffix, mark, entries in lengths(filled) if entries]


def net_table(root: Path) -> str:
    """All named nets with depth, parameters and multiply-adds."""
    lines = ["| net | image | depth | parameters | multiply-adds | defined in |", "|:--|--:|--:|--:|--:|:--|"]
    for name, variant in VARIANTS.items():
        s = variant_summary(name)
        lines.append(
            f"| `{name}` | {s.image_size} | {s.depth} | {s.params:,} | {s.flops / 1e9:.3f} G | {variant.source} |"
        )
    return "\n".join(lines)


TABLES: dict[str, Callable[[Path], str]] = {
    "digits_ablation": ablation_table,
    "papers": paper_tables,
    "nets": net_table,
}


def regenerated(root: Path = ROOT) -> str:
    """The README with the text between each pair of markers made anew.

    Raises:
      UserError: if it lacks the markers of a table.
    """
    text = (root / "README.md").read_text()
    for name, make in TABLES.items():
        begin, end = f"<!-- begin {name} -->", f"<!-- end {name} -->"
        pattern = re.compile(re.escape(begin) + ".*?" + re.escape(end), re.DOTALL)
        found = pattern.search(text)
        if found is None:
            raise UserError(f"README.md lacks the markers {begin} and {end}")
        before, after = text[: found.start()], text[found.end() :]
        text = f"{before}{begin}\n{make(root).strip()}\n{end}{after}"
    return text


def update(root: Path = ROOT) -> None:
    """Writes the README's tables and the curves beside the records."""
    if (root / DIGITS).is_dir():
        plot_curves(ablation.runs(root / DIGITS), root / DIGITS / "curves.png")
    for filled in published(root):
        for path, _, suffix in pictures(filled):
            save(draw(filled, suffix), root / path)
    (root / "README.md").write_text(regenerated(root))
