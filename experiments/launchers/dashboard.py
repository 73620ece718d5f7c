"""Shows the progress of a table's runs: which are done, how far the others are, their errors, the time left."""

import dataclasses
import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol, Self, TextIO

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from experiments.estimate import Rates, duration
from experiments.launchers.process import LOG, Outcome
from experiments.plan import Plan, State, Status, Trial, newest_checkpoint

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
      values: the newest train_error, test_error and images_per_second.
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


class Board(Protocol):
    """What a launcher calls as its runs go on, inside a `with`."""

    def start(self, trial: Trial) -> None:
        """Notes that a run begins or continues."""

    def again(self, trial: Trial, outcome: Outcome) -> None:
        """Notes that a run ended early and waits to continue."""

    def end(self, trial: Trial, outcome: Outcome) -> None:
        """Notes that a run is over."""

    def tick(self) -> None:
        """Updates what is shown; called several times a second."""


class Runs:
    """The state of all runs of a plan, which both boards show."""

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

    def count(self, trials: Sequence[Trial], state: str) -> int:
        """Returns how many of the runs are in a state."""
        return sum(self[trial].state == state for trial in trials)

    def in_state(self, state: str) -> list[Trial]:
        """Returns the runs in a state."""
        return [trial for trial in self.plan.trials if self[trial].state == state]

    def left(self) -> str:
        """Returns the time left in words: "more than ..." if the speed of some runs is unknown."""
        seconds, longest, unknown = 0.0, 0.0, 0
        for trial in [*self.in_state("running"), *self.in_state("waiting")]:
            found = self.rates.seconds(trial.config, trial.steps - self[trial].step)
            if found is None:
                unknown += 1
            else:
                seconds, longest = seconds + found, max(longest, found)
        if unknown and not seconds:
            return "unknown yet"
        text = duration(max(seconds / self.at_once, longest))
        return f"more than {text} ({unknown} runs of unknown speed)" if unknown else f"about {text}"


class PlainBoard:
    """Prints a line when a run begins or ends, and one every `seconds`, for logs."""

    def __init__(self, runs: Runs, stream: TextIO, seconds: float = 30) -> None:
        self.runs, self._stream, self._seconds = runs, stream, seconds
        self._last = time.monotonic()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None: ...

    def start(self, trial: Trial) -> None:
        self.runs[trial].state = "running"
        at = newest_checkpoint(trial.folder)
        self._print(f"{trial.name}: {f'goes on from step {at}' if at else 'begins'} ({trial.folder})")

    def again(self, trial: Trial, outcome: Outcome) -> None:
        self.runs[trial].state = "waiting"
        self._print(f"{trial.name}: {outcome.text.splitlines()[0]}; it will go on from its checkpoint")

    def end(self, trial: Trial, outcome: Outcome) -> None:
        self.runs.end(trial, outcome)
        total = len(self.runs.plan.trials)
        done = f"{len(self.runs.in_state('done'))} of {total} runs done, {self.runs.left()} left"
        text = " ".join(outcome.text.split("\n")[:1])
        found = errors(self.runs[trial]) if outcome.kind == "done" else text
        self._print(f"{trial.name}: {self.runs[trial].state} in {duration(outcome.seconds)}, {found}; {done}")

    def tick(self) -> None:
        if time.monotonic() - self._last >= self._seconds:
            self._last = time.monotonic()
            for trial in self.runs.in_state("running"):
                self.runs.look(trial)
                progress = self.runs[trial]
                self._print(f"{trial.name}: step {progress.step} of {trial.steps}, {errors(progress)}")

    def _print(self, text: str) -> None:
        print(text, file=self._stream, flush=True)


class LiveBoard:
    """Keeps a table in the terminal up to date: a line for each row, one for each running run, and the failures."""

    def __init__(self, runs: Runs, console: Console) -> None:
        self.runs, self._console = runs, console
        self._live = Live(console=console, auto_refresh=False)
        self._last = 0.0

    def __enter__(self) -> Self:
        self._live.start()
        self._show()
        return self

    def __exit__(self, *exception: object) -> None:
        self._show()
        self._live.stop()

    def start(self, trial: Trial) -> None:
        self.runs[trial].state = "running"

    def again(self, trial: Trial, outcome: Outcome) -> None:
        self.runs[trial].state = "waiting"

    def end(self, trial: Trial, outcome: Outcome) -> None:
        self.runs.end(trial, outcome)

    def tick(self) -> None:
        if time.monotonic() - self._last >= 1:
            self._last = time.monotonic()
            for trial in self.runs.in_state("running"):
                self.runs.look(trial)
            self._show()

    def _show(self) -> None:
        self._live.update(self.render(), refresh=True)

    def render(self) -> Group:
        """Returns what is shown now."""
        runs = self.runs
        rows = Table(box=None, pad_edge=False)
        rows.add_column("row")
        for state in ("done", "running", "waiting", "failed"):
            rows.add_column(state, justify="right")
        for line in runs.plan.lines:
            counts = [runs.count(line.trials, state) for state in ("done", "running", "waiting", "failed")]
            styles = ("green", "cyan", "", "red")
            cells = [Text(str(n) if n else "·", s if n else "dim") for n, s in zip(counts, styles, strict=True)]
            rows.add_row(Text(line.row.label), *cells)
        now = Table.grid(padding=(0, 2))
        for trial in runs.in_state("running"):
            progress = runs[trial]
            bar = ProgressBar(total=trial.steps, completed=progress.step, width=20)
            # Before the first metrics, the log says what it does: loading, compiling, waiting.
            text = errors(progress) if progress.values else progress.log_line
            now.add_row(trial.name, bar, f"{progress.step}/{trial.steps}", Text(text, overflow="ellipsis"))
        parts: list[RenderableType] = [rows, Text(), now]
        for trial in runs.in_state("failed"):
            last = runs[trial].text.strip().splitlines()[-1:] or ["?"]
            parts.append(Text(f"{trial.name} failed: {last[0]}", "red", overflow="ellipsis", no_wrap=True))
        done, total = len(runs.in_state("done")), len(runs.plan.trials)
        parts.append(Text(f"{done} of {total} runs done; time left: {runs.left()}", "bold"))
        return Group(*parts)


def errors(progress: Progress) -> str:
    """Returns what is known of a run's errors and speed."""
    forms = (("train_error", "train error {:.2f} %"), ("test_error", "test error {:.2f} %"),
             ("images_per_second", "{:,.0f} images/s"))  # fmt: skip
    known = [form.format(progress.values[name]) for name, form in forms if name in progress.values]
    return "  ".join(known) or "no step is recorded yet"


def tail(path: Path) -> list[str]:
    """Returns the last lines of a text file, none if there is no file."""
    try:
        with path.open("rb") as file:
            file.seek(max(0, file.seek(0, 2) - TAIL))
            return [line for line in file.read().decode(errors="replace").splitlines() if line.strip()]
    except OSError:
        return []


def make_board(runs: Runs, stream: TextIO | None = None) -> PlainBoard | LiveBoard:
    """Returns the live table if the stream (stderr by default) is a terminal, else the one of plain lines."""
    stream = stream or sys.stderr
    return LiveBoard(runs, Console(file=stream)) if stream.isatty() else PlainBoard(runs, stream)
