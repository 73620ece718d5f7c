"""Copies the records of finished runs to results/, where they are committed."""

import dataclasses
import json
import shutil
from pathlib import Path
from typing import Any

from experiments import ablation, registry
from experiments.experiment import run_folder, runnable
from experiments.readme import DIGITS, PAPERS, ROOT, update
from experiments.run_index import index_runs, is_finished
from resnet_jax.config import config_hash, to_dict
from resnet_jax.errors import UserError
from resnet_jax.report.analysis.figures import FIGURES, is_measured
from resnet_jax.training.result import changed
from resnet_jax.training.run_record import RunRecord

#: Files of a committed run of the ablation; checkpoints and TensorBoard files are too large.
RECORD_FILES = ("config.json", "metrics.jsonl", "result.json")

#: Fields of metrics.jsonl that tables and curves need; the others of a paper's run are not committed.
CURVES = ("step", "loss", "train_error", "learning_rate", "test_error", "test_loss")


def publish(source: Path, root: Path = ROOT) -> list[Path]:
    """Copies the finished records under `source` to results/, and updates the README.

    Args:
      source: the folder of the digits ablation's runs, or one that holds runs of the papers, however deep.
      root: of the checkout.

    Returns:
      The folders written, with those that have not changed.

    Raises:
      UserError: if a run of the ablation is not finished or not the config's, if no run of the papers is finished, for
        a source in results/ itself, and for what cannot be read.
    """
    if not source.is_dir():
        raise UserError(f"--source={source} is not a folder; run something first: make ablation")
    if source.resolve().is_relative_to(_results(root)):
        raise UserError(f"--source={source} is where records are copied to; give the folder of the runs themselves")
    is_ablation = any((source / row.name / "config.json").exists() for row in ablation.ROWS)
    written = _publish_ablation(source, root) if is_ablation else _publish_papers(source, root)
    update(root)
    return written


def _results(root: Path) -> Path:
    return (root / PAPERS.parent).resolve()


def _publish_ablation(source: Path, root: Path) -> list[Path]:
    for row in ablation.ROWS:
        folder = source / row.name
        record = RunRecord(folder)
        if (result := record.result()) is None:
            raise UserError(f"{folder} is not finished; run it first: make ablation")
        expected = config_hash(ablation.get_config(row.name))
        if not config_hash(record.config()) == result.config_hash == expected:
            raise UserError(f"{folder} is not a run of configs/digits.py:{row.name}, and is not published as one")
        if changes := record.changes() or result.changes:
            raise UserError(f"{folder} is not published: {changed(changes)}")
    for row in ablation.ROWS:
        target = root / DIGITS / row.name
        target.mkdir(parents=True, exist_ok=True)
        for file in RECORD_FILES:
            shutil.copyfile(source / row.name / file, target / file)
    return [root / DIGITS / row.name for row in ablation.ROWS]


def _publish_papers(source: Path, root: Path) -> list[Path]:
    index, results = index_runs(source), _results(root)
    sources = {  # results/ lies in `source` where that is the checkout
        key: tuple(run for run in runs if not run.folder.resolve().is_relative_to(results))
        for key, runs in index.runs.items()
    }
    index = dataclasses.replace(index, runs=sources)
    rows = [row for name in (*registry.NAMES, *registry.INSIDE) for row in runnable(registry.load(name))]
    found = dict.fromkeys(run for scale in index.scales for row in rows for run in index.find(row, scale))
    ours = [run for run in found if is_finished(run)]
    if not ours:
        raise UserError(f"--source={source} holds no finished run of the papers' tables; run some first")
    return [publish_run(run.folder, root / PAPERS) for run in ours]


def publish_run(folder: Path, target: Path) -> Path:
    """Copies the record of one finished run, without what is only about its machine's folders, into one under `target`.

    Of `metrics.jsonl` the fields in `CURVES` are kept.

    Raises:
      UserError: if the record cannot be read.
    """
    record = RunRecord(folder)
    config, lines = record.config(), record.lines()
    config.data.data_dir = None  # where the set lay, which is not part of what the run is
    place = run_folder(target, config)
    place.mkdir(parents=True, exist_ok=True)
    _write(place / "config.json", json.dumps(to_dict(config), indent=2))
    _write(place / "metrics.jsonl", "\n".join(_line(line) for line in lines))
    shutil.copyfile(folder / "result.json", place / "result.json")
    for analysis, (file, _) in FIGURES.items():
        if is_measured(folder, analysis):
            shutil.copyfile(folder / file, place / file)
        else:  # of an earlier run of the same config
            (place / file).unlink(missing_ok=True)
    return place


def _line(values: dict[str, Any]) -> str:
    # Six digits are more than single precision can tell apart in a mean over a batch.
    kept = {name: values[name] for name in CURVES if name in values}
    return json.dumps({name: float(f"{v:.6g}") if isinstance(v, float) else v for name, v in kept.items()})


def _write(path: Path, text: str) -> None:
    path.write_text(text + "\n", encoding="utf-8")
