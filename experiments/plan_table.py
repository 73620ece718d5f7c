"""A plan as a table: rows by seeds, how far each run is, and the time that is left."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from rich.console import Group, RenderableType
from rich.text import Text

from experiments.estimate import Rates, duration
from experiments.plan import Line, Plan, State, Status, Trial
from resnet_jax.errors import counted
from resnet_jax.report.grid import Cell, Grid, to_rich
from resnet_jax.report.grid import Line as GridLine

STYLES = {State.DONE: "green", State.PART: "yellow", State.MISSING: "dim", State.FAILED: "red"}

#: Seeds that have a column of their own; of more, the states are counted.
MOST_COLUMNS = 8


def plan_table(
    plan: Plan, statuses: Mapping[Path, Status], rates: Rates | None, at_once: int = 1, width: int = 80
) -> Group:
    """Returns the plan to print.

    Args:
      plan: rows and runs.
      statuses: of all runs, by folder.
      rates: of the nets; None leaves the times out.
      at_once: runs that go at a time, each on a device of its own.
      width: of the terminal.
    """
    seeds = max(len(line.trials) for line in plan.lines)
    headings = [f"seed {i}" for i in range(seeds)] if seeds <= MOST_COLUMNS else [*map(str, State)]
    several = len({line.experiment.name for line in plan.lines}) > 1
    lines = []
    for line, own in zip(plan.lines, plan.own(), strict=True):
        label = f"{line.experiment.name} {line.row.label}" if several else line.row.label
        cells = _seed_cells(line, own, statuses) if seeds <= MOST_COLUMNS else _count_cells(line, statuses)
        cells += [Cell("")] * (len(headings) - len(cells))  # rows differ in how many runs the paper made
        times = [] if rates is None else _time_cells(own, statuses, rates)
        lines.append(GridLine((Cell(label), *cells, *map(Cell, times))))
    timed = [] if rates is None else ["time left", "rate from"]
    grid = Grid(("row", *headings, *timed), tuple(lines))
    parts: list[RenderableType] = [to_rich(grid, width=width, box=None), Text(_counts(plan, statuses))]
    if rates is not None:
        parts.append(Text(_time_left(plan, statuses, rates, at_once), "bold"))
    return Group(*parts)


def _seed_cells(line: Line, own: Sequence[Trial], statuses: Mapping[Path, Status]) -> list[Cell]:
    cells = []
    for trial in line.trials:
        found = statuses[trial.folder]
        text = f"{found.step / trial.steps:.0%}" if found.state is State.PART else str(found.state)
        cells.append(Cell(text if trial in own else f"({text})", style=STYLES[found.state]))
    return cells


def _count_cells(line: Line, statuses: Mapping[Path, Status]) -> list[Cell]:
    states = [statuses[trial.folder].state for trial in line.trials]
    return [Cell(str(states.count(state)), style=STYLES[state]) for state in State]


def _total(trials: Iterable[Trial], statuses: Mapping[Path, Status], rates: Rates) -> tuple[float, int]:
    """Returns what `Rates.total` says of the rest of some runs."""
    return rates.total((trial.config, trial.steps - statuses[trial.folder].step) for trial in trials)


def _time_cells(own: Sequence[Trial], statuses: Mapping[Path, Status], rates: Rates) -> list[str]:
    if not own:
        return ["", "shared with a row above"]
    if all(statuses[trial.folder].state is State.DONE for trial in own):
        return ["-", ""]
    seconds, unknown = _total(own, statuses, rates)
    return ["?" if unknown else duration(seconds), rates.source(own[0].config)]


def _counts(plan: Plan, statuses: Mapping[Path, Status]) -> str:
    states = [statuses[trial.folder].state for trial in plan.trials]
    counts = ", ".join(f"{states.count(state)} {state}" for state in State if state in states)
    shared = sum(len(line.trials) for line in plan.lines) - len(states)
    return f"{counted(len(states), 'run')}: {counts}" + (f"; {shared} shared, in brackets, run once" if shared else "")


def _time_left(plan: Plan, statuses: Mapping[Path, Status], rates: Rates, at_once: int) -> str:
    seconds, unknown = _total(plan.trials, statuses, rates)
    text = f"total: {'more than' if unknown else 'about'} {duration(seconds / at_once)} of training"
    text += f" with {at_once} runs at a time" if at_once > 1 else ", one run after another"
    return f"{text}; loading, compilation and evaluations come on top"
