"""`python -m experiments [list]` and `python -m experiments NAME`: lists what there is, and how far it is."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from experiments.commands.options import add_runs, fill_all
from resnet_jax.cli.arguments import Parser
from resnet_jax.errors import counted

if TYPE_CHECKING:
    from experiments.estimate import Rates
    from experiments.tables import Filled


def _options(prog: str, arguments: Sequence[str]) -> Any:
    parser = Parser(prog=prog, description=__doc__)
    add_runs(parser)
    return parser.parse_args(arguments)


def main(arguments: Sequence[str]) -> None:
    """Lists all tables and figures."""
    options = _options("python -m experiments list", arguments)

    from rich.cells import cell_len
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    from experiments import registry
    from experiments.estimate import recorded_rates
    from experiments.outputs import state

    def table(title: str, rows: Sequence[Sequence[str]]) -> Table:
        found = Table(title=title, title_justify="left", box=None, pad_edge=False)
        for i, heading in enumerate(("name", "shows", "rows", "runs", "the rest")):
            longest = max(cell_len(word) for row in rows for word in [*row[i].split(), heading])
            found.add_column(heading, justify="right" if heading == "rows" else "left", min_width=longest,
                             overflow="fold")  # fmt: skip
        for row in rows:
            found.add_row(*map(Text, row))
        return found

    def rows(names: Sequence[str]) -> list[list[str]]:
        found = []
        for one in filled:
            e = one.experiment
            if e.name in names:
                # Name the nets that such a figure needs.
                nets = f" ({', '.join(row.label for row in e.rows)})" if e.name in registry.INSIDE else ""
                found.append([e.name, e.title + nets, str(len(e.rows)), state(one), cost(one, rates)])
        return found

    filled = fill_all([*registry.NAMES, *registry.INSIDE], options, with_computed=False)
    rates = recorded_rates(options.runs)
    not_yet = [[name, what, "", "not there yet", ""] for name, what in registry.NOT_YET.items()]
    console = Console()
    console.print(table("Tables and figures of the two papers", [*rows(registry.NAMES), *not_yet]))
    console.print()
    console.print(table("Figures that analyse trained nets", rows(registry.INSIDE)))
    console.print(
        Text(
            "python -m experiments NAME shows the rows, NAME render writes them, NAME run --help says how to run them; "
            "he2015 and he2016 stand for all of a paper."
        ),
        style="dim",
    )


def show(name: str, arguments: Sequence[str]) -> None:
    """Shows the rows of a table or figure, or of all of a paper's."""
    options = _options(f"python -m experiments {name}", arguments)

    from rich.console import Console

    from experiments import registry
    from experiments.outputs import grid
    from resnet_jax.report.grid import to_rich

    names = registry.expand(name)
    for one in fill_all(names, options):
        console = Console()
        console.print(to_rich(grid(one), f"{one.experiment.name}: {one.experiment.title}", console.width))


def cost(filled: "Filled", rates: "Rates") -> str:
    """Returns how long the missing runs take one after the other, as far as their rates are known."""
    from experiments.estimate import duration
    from experiments.experiment import row_config
    from experiments.outputs import needed

    missing: list[tuple[Any, int]] = []
    for row, done, wanted in needed(filled):
        if done < wanted:
            config = row_config(row, changes=filled.changes)
            missing += [(config, config.steps)] * (wanted - done)
    if not missing:
        return ""
    seconds, unknown = rates.total(missing)
    if not seconds:
        return "not measured"
    return duration(seconds) + (f" and {counted(unknown, 'run')} not measured" if unknown else "")
