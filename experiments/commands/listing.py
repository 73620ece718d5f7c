"""`python -m experiments [list]` and `python -m experiments NAME`: lists what there is, and how far it is."""

from collections.abc import Sequence
from typing import Any

from ml_collections import ConfigDict

from experiments import registry
from experiments.commands.options import add_runs, fill_all
from experiments.estimate import Rates, duration, recorded_rates
from experiments.experiment import row_config
from experiments.tables import Filled
from resnet_jax.cli.arguments import Parser


def _options(prog: str, arguments: Sequence[str]) -> Any:
    parser = Parser(prog=prog, description=__doc__)
    add_runs(parser)
    return parser.parse_args(arguments)


def main(arguments: Sequence[str]) -> None:
    """Lists all tables and figures."""
    options = _options("python -m experiments list", arguments)

    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    from experiments.outputs import state

    def table(title: str, names: Sequence[str], filled: Sequence[Any]) -> Table:
        found = Table(title=title, title_justify="left", box=None, pad_edge=False)
        for heading in ("name", "shows", "rows", "runs", "the rest"):
            found.add_column(heading, justify="right" if heading == "rows" else "left", no_wrap=heading == "name")
        for one in filled:
            e = one.experiment
            if e.name in names:
                # Name the nets that such a figure needs.
                nets = f" ({', '.join(row.label for row in e.rows)})" if e.name in registry.INSIDE else ""
                found.add_row(e.name, Text(e.title + nets), str(len(e.rows)), state(one), cost(one, rates))
        return found

    filled = fill_all([*registry.NAMES, *registry.INSIDE], options, with_computed=False)
    rates = recorded_rates(options.runs)
    papers = table("Tables and figures of the two papers", registry.NAMES, filled)
    for name, what in registry.NOT_YET.items():
        papers.add_row(name, Text(what), "", "not there yet", "")
    console = Console()
    console.print(papers)
    console.print()
    console.print(table("Figures that analyse trained nets", registry.INSIDE, filled))
    console.print(
        Text(
            "python -m experiments NAME shows the rows, NAME render writes them, NAME run --help says how to run them; "
            "he2015 and he2016 stand for all of a paper."
        ),
        style="dim",
    )


def show(name: str, arguments: Sequence[str]) -> None:
    """Shows the rows of a table or figure, or of all of a paper's."""
    from rich.console import Console

    from experiments.outputs import grid
    from resnet_jax.report.grid import to_rich

    names = registry.expand(name)
    for one in fill_all(names, _options(f"python -m experiments {name}", arguments)):
        console = Console()
        console.print(to_rich(grid(one), f"{one.experiment.name}: {one.experiment.title}", console.width))


def cost(filled: Filled, rates: Rates) -> str:
    """Returns how long the missing runs take one after the other, as far as their rates are known."""
    from experiments.outputs import needed

    missing: list[tuple[ConfigDict, int]] = []
    for row, done, wanted in needed(filled):
        if done < wanted:
            config = row_config(row, changes=filled.changes)
            missing += [(config, config.steps)] * (wanted - done)
    if not missing:
        return ""
    seconds, unknown = rates.total(missing)
    if not seconds:
        return "not measured"
    return duration(seconds) + (f" and {unknown} runs not measured" if unknown else "")
