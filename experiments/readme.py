"""The README's tables and pictures, from the committed run records alone."""

import re
import shutil
from collections.abc import Callable
from pathlib import Path

from experiments import ablation
from resnet_jax.errors import UserError
from resnet_jax.models.registry import VARIANTS, create_model
from resnet_jax.models.summary import summarize
from resnet_jax.report.curves import plot_curves
from resnet_jax.report.table import to_markdown

ROOT = Path(__file__).resolve().parents[1]
DIGITS = Path("results/digits_ablation")

#: What a committed run consists of; checkpoints and TensorBoard files are large and stay behind.
RECORD_FILES = ("config.json", "metrics.jsonl", "result.json")


def ablation_table(root: Path) -> str:
    """The digits ablation, and the machine that it ran on."""
    runs = ablation.runs(root / DIGITS)
    results = [run.result for run in runs if run.result is not None]
    if not results:
        return to_markdown(runs)
    machines = {f"{r.hardware['cpu_cores']} cores of {r.hardware['cpu']}, Python {r.versions['python']}, "
                f"JAX {r.versions['jax']}, commit {r.commit}, {r.finished[:10]}" for r in results}  # fmt: skip
    return f"{to_markdown(runs)}\nMeasured on {'; '.join(sorted(machines))}; seed {results[0].seed}."


def net_table(root: Path) -> str:
    """All named nets with depth, parameters and multiply-adds."""
    lines = ["| net | image | depth | parameters | multiply-adds | defined in |", "|:--|--:|--:|--:|--:|:--|"]
    for name, variant in VARIANTS.items():
        s = summarize(create_model(name), name, variant.image_size)
        lines.append(
            f"| `{name}` | {s.image_size} | {s.depth} | {s.params:,} | {s.flops / 1e9:.3f} G | {variant.source} |"
        )
    return "\n".join(lines)


TABLES: dict[str, Callable[[Path], str]] = {"digits_ablation": ablation_table, "nets": net_table}


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
    plot_curves(ablation.runs(root / DIGITS), root / DIGITS / "curves.png")
    (root / "README.md").write_text(regenerated(root))


def publish(source: Path, root: Path = ROOT) -> None:
    """Copies the records of the finished ablation under `source` to results/, and updates the README.

    Raises:
      UserError: if a run is not finished.
    """
    for row in ablation.ROWS:
        if not (source / row.net / "result.json").exists():
            raise UserError(f"{source / row.net} is not finished; run it first: make ablation")
    for row in ablation.ROWS:
        target = root / DIGITS / row.net
        target.mkdir(parents=True, exist_ok=True)
        for file in RECORD_FILES:
            shutil.copyfile(source / row.net / file, target / file)
    update(root)
