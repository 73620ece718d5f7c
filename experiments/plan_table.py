"""A plan as a table: rows by seeds, how far each run is, and the time that is left."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from rich.console import Group, RenderableType
from rich.text import Text

from experiments.estimate import Rates, duration
from experiments.plan import Line, Plan, State, Status, Trial
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
    several = len({line.experiment for line in plan.lines}) > 1
    lines = []
    for line in plan.lines:
        label = f"{line.experiment} {line.row.label}" if several else line.row.label
        cells = _seed_cells(line, statuses) if seeds <= MOST_COLUMNS else _count_cells(line, statuses)
        cells += [Cell("")] * (len(headings) - len(cells))  # rows differ in how many runs the paper made
        times = [] if rates is None else _time_cells(line, statuses, rates)
        lines.append(GridLine((Cell(label), *cells, *map(Cell, times))))
    timed = [] if rates is None else ["time left", "rate from"]
    grid = Grid(("row", *headings, *timed), tuple(lines))
    parts: list[RenderableType] = [to_rich(grid, width=width, box=None), Text(_counts(plan, statuses))]
    if rates is not None:
        parts.append(Text(_total(plan, statuses, rates, at_once), "bold"))
    return Group(*parts)


def _seed_cells(line: Line, statuses: Mapping[Path, Status]) -> list[Cell]:
    cells = []
    for trial in line.trials:
        found = statuses[trial.folder]
        text = f"{found.step / trial.steps:.0%}" if found.state is State.PART else str(found.state)
        cells.append(Cell(text if trial in line.own else f"({text})", style=STYLES[found.state]))
    return cells


def _count_cells(line: Line, statuses: Mapping[Path, Status]) -> list[Cell]:
    states = [statuses[trial.folder].state for trial in line.trials]
    return [Cell(str(states.count(state)), style=STYLES[state]) for state in State]


def seconds_left(trials: Sequence[Trial], statuses: Mapping[Path, Status], rates: Rates) -> float | None:
    """Returns how long the rest of some runs trains, or None if the rate of one of them is not known."""
    total = 0.0
    for trial in trials:
        found = statuses[trial.folder]
        if found.state is not State.DONE:
            seconds = rates.seconds(trial.config, trial.steps - found.step)
            if seconds is None:
                return None
            total += seconds
    return total


def _time_cells(line: Line, statuses: Mapping[Path, Status], rates: Rates) -> list[str]:
    if not line.own:
        return ["", "shared with a row above"]
    if all(statuses[trial.folder].state is State.DONE for trial in line.own):
        return ["-", ""]
    seconds = seconds_left(line.own, statuses, rates)
    return ["?" if seconds is None else duration(seconds), rates.source(line.own[0].config)]


def _counts(plan: Plan, statuses: Mapping[Path, Status]) -> str:
    states = [statuses[trial.folder].state for trial in plan.trials]
    counts = ", ".join(f"{states.count(state)} {state}" for state in State if state in states)
    shared = sum(len(line.trials) for line in plan.lines) - len(states)
    return f"{len(states)} runs: {counts}" + (f"; {shared} shared, in brackets, run once" if shared else "")


def _total(plan: Plan, statuses: Mapping[Path, Status], rates: Rates, at_once: int) -> str:
    found = [seconds_left(line.own, statuses, rates) for line in plan.lines]
    seconds = sum(known for known in found if known is not None)
    text = f"total: {'more than' if None in found else 'about'} {duration(seconds / at_once)} of training"
    text += f" with {at_once} runs at a time" if at_once > 1 else ", one run after another"
    return f"{text}; loading, compilation and evaluations come on top"
