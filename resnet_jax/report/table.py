"""The table of a report. Markdown, the terminal and the page show the same cells, made here."""

import dataclasses
from collections.abc import Callable, Sequence

import rich.table
from rich.text import Text

from resnet_jax.report.run_data import Run
from resnet_jax.training.record import Result


@dataclasses.dataclass(frozen=True)
class Column:
    """A column: its heading, and how a finished run's cell reads."""

    heading: str
    cell: Callable[[Result], str]


def _test_error(result: Result) -> str:
    # A held-out part of the training set is not the test set, and must not pass for it.
    return f"{result.test_error:.2f}" + (" (held out)" if result.evaluated_on == "held_out" else "")


#: All columns after the first, which is the run's label.
COLUMNS = (
    Column("depth", lambda result: str(result.depth)),
    Column("parameters", lambda result: f"{result.params:,}"),
    Column("training error (%)", lambda result: f"{result.train_error:.2f}"),
    Column("test error (%)", _test_error),
    Column("seconds", lambda result: f"{result.seconds:,.1f}"),
    Column("images/s", lambda result: f"{result.images_per_second:,.0f}"),
)


def headings() -> list[str]:
    """The headings, the label's first."""
    return ["net", *(column.heading for column in COLUMNS)]


def rows(runs: Sequence[Run]) -> list[list[str]]:
    """[runs][headings] cells. A run that is not finished has its label and empty cells."""
    return [[run.label, *(column.cell(run.result) if run.result else "" for column in COLUMNS)] for run in runs]


def to_markdown(runs: Sequence[Run]) -> str:
    """A Markdown table, padded so that it reads as plain text too, with a newline at its end."""
    lines = [[cell.replace("|", "\\|") for cell in line] for line in [headings(), *rows(runs)]]
    widths = [max(3, *(len(line[i]) for line in lines)) for i in range(len(lines[0]))]
    rule = ["-" * widths[0], *("-" * (width - 1) + ":" for width in widths[1:])]
    lines.insert(1, rule)
    padded = [[line[0].ljust(widths[0]), *map(str.rjust, line[1:], widths[1:])] for line in lines]
    return "".join(f"| {' | '.join(line)} |\n" for line in padded)


def to_rich(runs: Sequence[Run], title: str | None = None) -> rich.table.Table:
    """The table for a terminal."""
    table = rich.table.Table(title=title)
    for i, heading in enumerate(headings()):
        table.add_column(heading, justify="right" if i else "left")
    for row in rows(runs):
        table.add_row(*map(Text, row))  # Text: a label's brackets are not rich's markup
    return table
