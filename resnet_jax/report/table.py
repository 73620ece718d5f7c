"""The table of finished runs that reports, the terminal and the README show."""

from collections.abc import Callable, Sequence

from resnet_jax.report.grid import Grid, make_grid
from resnet_jax.report.grid import to_markdown as grid_to_markdown
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


def runs_grid(runs: Sequence[Run]) -> Grid:
    """Returns the table. A run that is not finished has its label and empty cells."""
    rows = [[run.label, *(cell(run.result) if run.result else "" for cell in COLUMNS.values())] for run in runs]
    return make_grid(["net", *COLUMNS], rows)


def to_markdown(runs: Sequence[Run]) -> str:
    """Returns the table as Markdown, with a newline at its end."""
    return grid_to_markdown(runs_grid(runs))
