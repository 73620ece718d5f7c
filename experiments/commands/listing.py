"""`python -m experiments [list]` and `python -m experiments NAME`: lists what there is, and how far it is."""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from experiments import registry
from experiments.commands.options import Parser, add_runs, changes
from experiments.estimate import Rates, add_records, duration
from experiments.experiment import paper_seeds, row_config, runnable
from experiments.tables import Filled
from resnet_jax.cli.run_command import run_command


def main(arguments: Sequence[str]) -> int:
    """Lists all tables and figures; returns the exit status."""
    return run_command(lambda: _list(_options("python -m experiments list", arguments)))


def show(name: str, arguments: Sequence[str]) -> int:
    """Shows the rows of a table or figure, or of all of a paper's; returns the exit status."""
    return run_command(lambda: _show(name, arguments))


def _options(prog: str, arguments: Sequence[str]) -> Any:
    parser = Parser(prog=prog, description=__doc__)
    add_runs(parser)
    return parser.parse_args(arguments)


def _fill(names: Sequence[str], options: Any, with_computed: bool = True) -> list[Any]:
    """Returns the tables and figures with their runs, and warns of folders that could not be read."""
    from experiments.run_index import index_runs
    from experiments.tables import fill

    index = index_runs(options.runs)
    for sentence in index.unreadable:
        print(f"warning: left out: {sentence}", file=sys.stderr)
    fields = changes(options.set)
    return [fill(registry.load(name), index, fields, with_computed) for name in names]


def _list(options: Any) -> None:
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

    filled = _fill([*registry.NAMES, *registry.INSIDE], options, with_computed=False)
    rates = known_rates(options.runs)
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


def _show(name: str, arguments: Sequence[str]) -> None:
    from rich.console import Console

    from experiments.outputs import grid
    from resnet_jax.report.grid import to_rich

    names = registry.expand(name)
    for one in _fill(names, _options(f"python -m experiments {name}", arguments)):
        console = Console()
        console.print(to_rich(grid(one), f"{one.experiment.name}: {one.experiment.title}", console.width))


def known_rates(runs: Path) -> Rates:
    """Returns how fast nets train by the records under `runs`."""
    rates = Rates()
    add_records(rates, runs, None)
    return rates


def cost(filled: Filled, rates: Rates) -> str:
    """Returns how long the missing runs take one after the other, as far as their rates are known."""
    from experiments.run_index import seedless_hash

    done = {entry.name: entry.done for entry in filled.entries if entry.full}
    missing: dict[str, tuple[Any, int]] = {}
    for row in runnable(filled.experiment):
        count = paper_seeds(filled.experiment, row) - done.get(row.name, 0)
        key = seedless_hash(row, 1.0, filled.changes)
        if count > 0 and count > missing.get(key, (None, 0))[1]:
            missing[key] = (row_config(row, changes=filled.changes), count)
    if not missing:
        return ""
    seconds = [(rates.seconds(config, config.steps), count) for config, count in missing.values()]
    known = sum(time * count for time, count in seconds if time is not None)
    unknown = sum(count for time, count in seconds if time is None)
    if not known:
        return "not measured"
    return duration(known) + (f" and {unknown} runs not measured" if unknown else "")
