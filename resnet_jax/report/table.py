"""The table of finished runs, one in a row, that the ablation's page, the terminal and the README show."""

from collections.abc import Callable, Sequence
from functools import partial

from resnet_jax.report.grid import Cell, Grid, Line
from resnet_jax.report.run_data import Run
from resnet_jax.tasks.choose import task_type
from resnet_jax.tasks.task import heading
from resnet_jax.training.result import Result


def _metric(name: str, result: Result) -> str:
    # A held-out part of the training set is not the test set, and must not pass for it.
    mark = " (held out)" if name.startswith("test_") and result.evaluated_on == "held_out" else ""
    return f"{result.metrics[name]:.2f}{mark}" if name in result.metrics else ""


def columns(task: str) -> dict[str, Callable[[Result], str]]:
    """Returns the heading and the cell of each column after the first, which has the run's label."""
    shown = task_type(task).shown
    return {
        "depth": lambda result: str(result.depth),
        "parameters": lambda result: f"{result.params:,}",
        **{f"{heading(name)} ({unit})": partial(_metric, name) for name, unit in shown.items()},
        "seconds": lambda result: f"{result.seconds:,.1f}",
        "images/s": lambda result: f"{result.images_per_second:,.0f}",
    }


def runs_grid(runs: Sequence[Run], notes: Sequence[str] = ()) -> Grid:
    """Returns the table of runs of one task; a number's key is the run's label.

    A run that is not finished has empty cells.
    """
    cells_of = columns(next((run.result.task for run in runs if run.result), "classification"))
    lines = []
    for run in runs:
        cells = [Cell(cell(run.result) if run.result else "", run.label) for cell in cells_of.values()]
        lines.append(Line((Cell(run.label), *cells)))
    return Grid(("net", *cells_of), tuple(lines), tuple(notes))
