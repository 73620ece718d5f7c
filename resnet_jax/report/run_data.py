"""The result and the curves of a run, read from its folder."""

import dataclasses
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from resnet_jax.errors import UserError
from resnet_jax.tasks.choose import task_type
from resnet_jax.training.result import Result
from resnet_jax.training.run_record import RunRecord


@dataclasses.dataclass(frozen=True, eq=False)  # arrays cannot be compared by ==
class Run:
    """A run under the name that a report gives it.

    Attributes:
      label: what the table calls it, such as "ResNet-20".
      group: the panel it is drawn in, such as "plain" or "residual".
      workdir: the run's folder.
      result: None if the run is not finished: it is then listed with empty cells and not drawn.
      train_steps, train_errors: [lines] steps done, and percent of the batches since the line before; of other tasks
        than classification what their records have in its place.
      train_losses: [lines] mean loss of those batches, in nats, without the weight decay.
      test_steps, test_errors: [evaluations] steps done, and percent of the test (or held-out) set.
    """

    label: str
    group: str
    workdir: Path
    result: Result | None
    train_steps: np.ndarray
    train_errors: np.ndarray
    train_losses: np.ndarray
    test_steps: np.ndarray
    test_errors: np.ndarray

    @property
    def has_errors(self) -> bool:
        """Returns whether it is finished and `test_errors` are errors, not what another task is chosen by."""
        return self.result is not None and task_type(self.result.task).best_metric == "test_error"


def load_run(label: str, group: str, workdir: str | Path) -> Run:
    """Reads a run's folder; one that does not exist counts as an unfinished run.

    Raises:
      UserError: if the folder's records cannot be read.
    """
    record = RunRecord(workdir)
    try:
        result, lines = record.result(), record.lines()
        task = task_type(result.task if result else "classification")
        trained = next(name for name in task.shown if name.startswith("train_"))
        train_steps, train_errors = _series(lines, trained)
        _, train_losses = _series([line for line in lines if trained in line], "loss")
        test_steps, test_errors = _series(lines, task.best_metric)
    except (OSError, ValueError, KeyError) as error:
        raise UserError(f"cannot read the run record in {record.workdir}: {error}") from error
    return Run(label, group, record.workdir, result, train_steps, train_errors, train_losses, test_steps, test_errors)


def _series(lines: Iterable[dict[str, float]], name: str) -> tuple[np.ndarray, np.ndarray]:
    points = [(line["step"], line[name]) for line in lines if name in line]
    return np.array([step for step, _ in points], np.int64), np.array([value for _, value in points], np.float64)
