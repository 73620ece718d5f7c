"""A run's errors by the experiments' names for them.

`test_error` is in the run's result. Errors by other ways of testing (ten crops, several scales, one crop of a size)
are read from `evaluations/<metric>.json` in the run's folder: an object with `test_error` (top-1) and `top5_error`
in percent and `evaluated_on`, as an evaluation of the run writes it.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from resnet_jax.errors import UserError
from resnet_jax.report.runs import Run

#: Field of an evaluation for each column of a table.
FIELDS = {"error": "test_error", "top1": "test_error", "top5": "top5_error"}

#: Metrics that a run's own result has, for which nothing else is read.
IN_RESULT = ("test_error", "train_error")


def score(run: Run, metric: str, column: str = "error") -> float | None:
    """A run's error in percent, None if it is not finished or was not tested so.

    An error that was chosen as the best of several on the test set is never taken.

    Args:
      run: the run.
      metric: "test_error", "train_error" or a way of testing.
      column: "error", "top1" or "top5".
    """
    if run.result is None:
        return None
    if metric in IN_RESULT:
        return None if column == "top5" else getattr(run.result, metric)
    found = evaluation(run.workdir, metric)
    return None if found is None else found.get(FIELDS[column])


def held_out(run: Run) -> bool:
    """Whether a finished run was tested on a part of the training set."""
    return run.result is not None and run.result.evaluated_on != "test"


def evaluation(folder: Path, metric: str) -> Mapping[str, Any] | None:
    """A run's evaluation by that metric, None if there is none on the test set.

    Raises:
      UserError: if it cannot be read.
    """
    path = folder / "evaluations" / f"{metric}.json"
    if not path.exists():
        return None
    try:
        found = json.loads(path.read_text())
        return found if found["evaluated_on"] == "test" else None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"cannot read {path}: {error}") from error
