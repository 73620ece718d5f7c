"""Writes the files that a test leaves in a run's folder."""

import csv
import dataclasses
import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from resnet_jax.atomic_write import atomic_write
from resnet_jax.errors import writing
from resnet_jax.evaluation import measures
from resnet_jax.evaluation.evaluate_runs import EvaluatedRuns, ProtocolResult
from resnet_jax.training.distributed import is_chief

#: Folder of the files, inside a run's.
EVALUATIONS = "evaluations"


def write_evaluation(tested: EvaluatedRuns, workdir: str | Path) -> Path:
    """Writes a test into a run's folder and returns the path of its JSON file.

    The files are evaluations/METRIC.json, METRIC_classes.csv, METRIC_confusion.csv and METRIC_calibration.csv. An
    earlier test by the same metric is replaced. Several processes call this together, and one writes.

    Raises:
      UserError: if the folder cannot be written to.
    """
    folder = Path(workdir).expanduser() / EVALUATIONS
    result, scores, labels = tested.result, tested.scores, tested.labels
    path = folder / f"{result.metric}.json"
    if not is_chief():
        return path
    ranks, matrix = measures.ranks(scores, labels), measures.confusion(scores, labels)
    found = measures.calibration(scores, labels)
    classes = [
        (c, int(np.sum(labels == c)), *(_percent(ranks[labels == c] >= k) for k in (1, 5)))
        for c in range(scores.shape[1])
    ]
    bins = [
        (f"{above:.4f}", f"{to:.4f}", int(n), *("" if n == 0 else f"{v:.6f}" for v in means))
        for above, to, n, *means in zip(
            found.edges[:-1], found.edges[1:], found.counts, found.confidence, found.accuracy, strict=True
        )
    ]
    tables: dict[str, list] = {
        "classes": [("class", "images", "error_percent", "top5_error_percent"), *classes],
        "confusion": [("class", *(f"guessed_{c}" for c in range(len(matrix)))),
                      *((c, *row) for c, row in enumerate(matrix.tolist()))],
        "calibration": [("above", "to", "images", "confidence", "accuracy"), *bins],
    }  # fmt: skip
    write_tables(path, tables, json.dumps(to_json(result), indent=2, allow_nan=False))
    return path


def write_tables(path: Path, tables: Mapping[str, Sequence[Sequence[Any]]], record: str) -> None:
    """Writes an evaluation's record, JSON, to `path`, and each table beside it, to STEM_NAME.csv.

    Raises:
      UserError: if the folder cannot be written to.
    """
    with writing(path.parent):
        path.parent.mkdir(exist_ok=True)
        for name, rows in tables.items():
            text = io.StringIO(newline="")
            csv.writer(text, lineterminator="\n").writerows(rows)
            atomic_write(path.with_name(f"{path.stem}_{name}.csv"), text.getvalue())
        atomic_write(path, record + "\n")


def to_json(result: ProtocolResult) -> dict[str, Any]:
    """Returns the result for JSON, with null for a loss that is not finite."""
    fields = dataclasses.asdict(result)
    return {k: None if isinstance(v, float) and not np.isfinite(v) else v for k, v in fields.items()}


def _percent(wrong: np.ndarray) -> str:
    return f"{100 * np.mean(wrong):.4f}" if wrong.size else ""
