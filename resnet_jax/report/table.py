"""The table of finished runs, one in a row, that the ablation's page, the terminal and the README show."""

from collections.abc import Callable, Sequence

from resnet_jax.report.grid import Cell, Grid, Line
from resnet_jax.report.run_data import Run
from resnet_jax.training.result import Result


def _test_error(result: Result) -> str:
    # A held-out part of the training set is not the test set, and must not pass for it.
    return f"{result.metrics['test_error']:.2f}" + (" (held out)" if result.evaluated_on == "held_out" else "")


#: Heading and cell of each column after the first, which has the run's label.
COLUMNS: dict[str, Callable[[Result], str]] = {
    "depth": lambda result: str(result.depth),
    "parameters": lambda result: f"{result.params:,}",
    "training error (%)": lambda result: f"{result.metrics['train_error']:.2f}",
    "test error (%)": _test_error,
    "seconds": lambda result: f"{result.seconds:,.1f}",
    "images/s": lambda result: f"{result.images_per_second:,.0f}",
}


def runs_grid(runs: Sequence[Run], notes: Sequence[str] = ()) -> Grid:
    """Returns the table; a number's key is the run's label. A run that is not finished has empty cells."""
    lines = []
    for run in runs:
        cells = [Cell(cell(run.result) if run.result else "", run.label) for cell in COLUMNS.values()]
        lines.append(Line((Cell(run.label), *cells)))
    return Grid(("net", *COLUMNS), tuple(lines), tuple(notes))
