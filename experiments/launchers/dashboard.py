"""Shows the progress of a table's runs: which are done, how far the others are, their errors, the time left."""

import dataclasses
import json
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

from rich.console import Console, Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Column, Table
from rich.text import Text

from experiments.estimate import Rates, duration
from experiments.launchers.process import LOG, Outcome
from experiments.plan import Plan, State, Status, Trial, newest_checkpoint
from resnet_jax.errors import counted
from resnet_jax.tasks.choose import task_type
from resnet_jax.tasks.task import spelt
from resnet_jax.training.progress import is_live

#: Bytes that are read from the end of metrics.jsonl and log.txt.
TAIL = 4096

#: Seconds after which a run's speed is taken from the clock.
CLOCK_SECONDS = 20


@dataclasses.dataclass
class Progress:
    """How far a run is.

    Attributes:
      state: "waiting", "running", "done", "failed" or "stopped".
      step: steps done.
      values: the newest metrics and images_per_second.
      log_line: the last line of its log.
      text: how it failed.
      first: (time, step) at the first look in this launch.
    """

    state: str
    step: int = 0
    values: dict[str, float] = dataclasses.field(default_factory=dict)
    log_line: str = ""
    text: str = ""
    first: tuple[float, int] | None = None


class Runs:
    """The state of all runs of a plan, which the board shows."""

    def __init__(self, plan: Plan, statuses: dict[Path, Status], rates: Rates, at_once: int) -> None:
        """`at_once` runs go at the same time, which decides the time left."""
        self.plan, self.rates, self.at_once = plan, rates, at_once
        self.progress = {
            folder: Progress("done" if found.state is State.DONE else "waiting", found.step)
            for folder, found in statuses.items()
        }

    def __getitem__(self, trial: Trial) -> Progress:
        return self.progress[trial.folder]

    def end(self, trial: Trial, outcome: Outcome) -> None:
        """Notes how a run ended."""
        progress = self[trial]
        progress.state = outcome.kind if outcome.kind in ("done", "stopped") else "failed"
        progress.text = "" if outcome.kind == "done" else outcome.text
        self.look(trial)

    def look(self, trial: Trial) -> None:
        """Reads from a run's folder how far it is."""
        progress = self[trial]
        for line in tail(trial.folder / "metrics.jsonl"):
            try:
                values: dict[str, Any] = json.loads(line)
                progress.step = int(values.pop("step"))
            except (ValueError, KeyError, TypeError, AttributeError):  # cut in two by the read or the write
                continue
            progress.values |= values
        progress.log_line = next(iter(tail(trial.folder / LOG)[-1:]), "").partition(": ")[2]
        now = time.monotonic()
        progress.first = progress.first or (now, progress.step)
        seconds, steps = now - progress.first[0], progress.step - progress.first[1]
        # The clock counts evaluations and checkpoints too, but says little at first: until then, the run's own rate.
        if seconds > CLOCK_SECONDS and steps:
            self.rates.add(trial.config, steps * trial.config.batch_size / seconds, "this launch")
        elif rate := progress.values.get("images_per_second"):
            self.rates.add(trial.config, rate, "this launch")

    def in_state(self, state: str) -> list[Trial]:
        """Returns the runs in a state."""
        return [trial for trial in self.plan.trials if self[trial].state == state]

    def failures(self) -> list[tuple[str, str]]:
        """Returns the name of each failed run, how it ended, and where its log is; several may be called alike."""
        return [(t.name, f"{self[t].text.strip()}\nlog: {t.folder / LOG}") for t in self.in_state("failed")]

    def left(self) -> str:
        """Returns the time left in words: "more than ..." if the speed of some runs is unknown."""
        trials = [*self.in_state("running"), *self.in_state("waiting")]
        left = [(trial.config, trial.steps - self[trial].step) for trial in trials]
        seconds, unknown = self.rates.total(left)
        if unknown and not seconds:
            return "unknown yet"
        longest = max((self.rates.seconds(*one) or 0 for one in left), default=0)
        text = duration(max(seconds / self.at_once, longest))
        return f"more than {text} ({counted(unknown, 'run')} of unknown speed)" if unknown else f"about {text}"


class Board:
    """Says when runs begin and end, and how far they are: in a terminal by a live table, for logs by lines.

    A launcher calls it as its runs go on, inside a `with`.
    """

    def __init__(self, runs: Runs, console: Console | None = None, seconds: float = 30) -> None:
        """`console` is stderr's by default; in a log, each run that goes on has a line every `seconds`."""
        self.runs = runs
        # FORCE_COLOR makes no terminal of a log.
        self._console = console or Console(stderr=True, force_terminal=is_live(sys.stderr))
        self._live = Live(get_renderable=self.render, console=self._console, auto_refresh=False)
        self._seconds = 1 if self._console.is_terminal else seconds
        self._last = time.monotonic()

    def __enter__(self) -> Self:
        if self._console.is_terminal:
            self._live.start(refresh=True)
        return self

    def __exit__(self, *exception: object) -> None:
        self._live.stop()

    def start(self, trial: Trial) -> None:
        """Notes that a run begins or continues."""
        self.runs[trial].state = "running"
        at = newest_checkpoint(trial.folder)
        self._say(f"{trial.name}: {f'goes on from step {at}' if at else 'begins'} ({trial.folder})")

    def again(self, trial: Trial, outcome: Outcome) -> None:
        """Notes that a run ended early and waits to continue."""
        self.runs[trial].state = "waiting"
        self._say(f"{trial.name}: {outcome.text.splitlines()[0]}; it will go on from its checkpoint")

    def end(self, trial: Trial, outcome: Outcome) -> None:
        """Notes that a run is over."""
        self.runs.end(trial, outcome)
        found = (
            metrics(self.runs[trial], shown(trial))
            if outcome.kind == "done"
            else " ".join(outcome.text.split("\n")[:1])
        )
        self._say(f"{trial.name}: {self.runs[trial].state} in {duration(outcome.seconds)}, {found}; {self._done()}")

    def tick(self) -> None:
        """Updates what is shown; called several times a second."""
        if time.monotonic() - self._last < self._seconds:
            return
        self._last = time.monotonic()
        for trial in self.runs.in_state("running"):
            self.runs.look(trial)
            if not self._console.is_terminal:
                progress = self.runs[trial]
                self._say(f"{trial.name}: step {progress.step} of {trial.steps}, {metrics(progress, shown(trial))}")
        if self._console.is_terminal:
            self._live.refresh()

    def _say(self, text: str) -> None:
        """Prints a line, above the live table if there is one."""
        self._console.print(text, markup=False, highlight=False, soft_wrap=True)

    def _done(self) -> str:
        runs = self.runs
        return f"{len(runs.in_state('done'))} of {counted(len(runs.plan.trials), 'run')} done, {runs.left()} left"

    def render(self) -> Group:
        """Returns the live table: a line for each row, one for each running run, and the failures."""
        runs = self.runs
        styles = {"done": "green", "running": "cyan", "waiting": "", "failed": "red"}
        rows = Table("row", *(Column(state, justify="right") for state in styles), box=None, pad_edge=False)
        for line in runs.plan.lines:
            states = [runs[trial].state for trial in line.trials]
            counts = {state: states.count(state) for state in styles}
            cells = [Text(str(n), styles[state]) if n else Text("·", "dim") for state, n in counts.items()]
            rows.add_row(Text(line.row.label), *cells)
        now = Table.grid(padding=(0, 2))
        for trial in runs.in_state("running"):
            progress = runs[trial]
            bar = ProgressBar(total=trial.steps, completed=progress.step, width=20)
            # Before the first metrics, the log says what it does: loading, compiling, waiting.
            text = metrics(progress, shown(trial)) if progress.values else progress.log_line
            steps = f"{progress.step}/{trial.steps}"
            room = self._console.width - len(trial.name) - len(steps) - 26
            if progress.values and len(text) > room:
                text = short_metrics(progress, shown(trial), room)
            now.add_row(trial.name, bar, steps, Text(text, overflow="ellipsis", no_wrap=True))
        failures = []
        for trial in runs.in_state("failed"):
            last = runs[trial].text.strip().splitlines()[-1:] or ["?"]
            failures.append(Text(f"{trial.name} failed: {last[0]}", "red", overflow="ellipsis", no_wrap=True))
        return Group(rows, Text(), now, *failures, Text(self._done(), "bold"))


def shown(trial: Trial) -> Mapping[str, str]:
    """Returns the metrics that a run's task shows, with their units."""
    return task_type(trial.config.task).shown


def metrics(progress: Progress, names: Mapping[str, str]) -> str:
    """Returns what is known of a run's metrics and speed; `names` are those of its task, with their units."""
    known = [f"{spelt(name)} {progress.values[name]:.2f} {unit}".rstrip() for name, unit in names.items()
             if name in progress.values]  # fmt: skip
    if (speed := progress.values.get("images_per_second")) is not None:
        known.append(f"{speed:,.0f} images/s")
    return "  ".join(known) or "no step is recorded yet"


def short_metrics(progress: Progress, names: Mapping[str, str], room: int) -> str:
    """Returns metrics in at most `room` columns, of which as many are shown as are whole."""
    numbers = [f"{progress.values[name]:.2f}" if name in progress.values else "-" for name in names]
    splits, kinds = zip(*(name.split("_", 1) for name in names), strict=True)
    kind = spelt(kinds[0]) if len(set(kinds)) == 1 else "/".join(spelt(kind) for kind in kinds)
    both, values, unit = "/".join(splits), "/".join(numbers), next(iter(names.values()))
    forms = (f"{both} {kind} {values} {unit}", f"{both} {values} {unit}", f"{values} {unit}", f"{numbers[-1]} {unit}")
    return next((form for form in forms if len(form) <= room), "")


def tail(path: Path) -> list[str]:
    """Returns the last lines of a text file, none if there is no file."""
    try:
        with path.open("rb") as file:
            file.seek(max(0, file.seek(0, 2) - TAIL))
            return [line for line in file.read().decode(errors="replace").splitlines() if line.strip()]
    except OSError:
        return []
