"""What a person sees while a table's runs go on: which are done, how far the running ones are, errors, time left."""

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

#: Bytes at the end of metrics.jsonl and log.txt that are looked at, some lines of each.
TAIL = 4096

#: Seconds of a run from which on the clock tells its speed.
CLOCK_SECONDS = 20


@dataclasses.dataclass
class Progress:
    """How far a run is, as the board knows it.

    Attributes:
      state: "waiting", "running", "done", "failed" or "stopped".
      step: steps done.
      values: the newest training and test error, images_per_second, that there are.
      said: the last line of its log, where there are no steps yet.
      text: how it failed.
      first: (time, step) at the first look that found a step in this launch.
    """

    state: str
    step: int = 0
    values: dict[str, float] = dataclasses.field(default_factory=dict)
    said: str = ""
    text: str = ""
    first: tuple[float, int] | None = None


class Board(Protocol):
    """What a launcher tells of its runs, inside a `with`."""

    def start(self, trial: Trial) -> None:
        """A run begins or goes on."""

    def again(self, trial: Trial, outcome: Outcome) -> None:
        """A run ended early and waits to go on."""

    def end(self, trial: Trial, outcome: Outcome) -> None:
        """A run is over."""

    def tick(self) -> None:
        """Some time has passed."""


class Runs:
    """The state of all runs of a plan, which both boards show."""

    def __init__(self, plan: Plan, statuses: dict[Path, Status], rates: Rates, at_once: int) -> None:
        """`at_once`: how many processes run at a time, for the time left."""
        self.plan, self.rates, self.at_once = plan, rates, at_once
        self.progress = {
            folder: Progress("done" if found.state is State.DONE else "waiting", found.step)
            for folder, found in statuses.items()
        }

    def __getitem__(self, trial: Trial) -> Progress:
        return self.progress[trial.folder]

    def end(self, trial: Trial, outcome: Outcome) -> None:
        """Notes what came of a run."""
        progress = self[trial]
        progress.state = outcome.kind if outcome.kind in ("done", "stopped") else "failed"
        progress.text = "" if outcome.kind == "done" else outcome.text
        self.look(trial)

    def look(self, trial: Trial) -> None:
        """Reads how far a run is from its folder."""
        progress = self[trial]
        for line in tail(trial.folder / "metrics.jsonl"):
            try:
                values: dict[str, Any] = json.loads(line)
                progress.step = int(values.pop("step"))
            except (ValueError, KeyError, TypeError, AttributeError):  # cut in two by the read or the write
                continue
            progress.values |= values
        progress.said = next(iter(tail(trial.folder / LOG)[-1:]), "").partition(": ")[2]
        now = time.monotonic()
        progress.first = progress.first or (now, progress.step)
        seconds, steps = now - progress.first[0], progress.step - progress.first[1]
        # Runs that share a process each have a part of its speed.
        shared = max(1.0, len(self.in_state("running")) / self.at_once)
        # By the clock once that says something, so that evaluations and checkpoints count; the run's own rate before.
        if seconds > CLOCK_SECONDS and steps:
            self.rates.add(trial.config, shared * steps * trial.config.batch_size / seconds, "this launch")
        elif rate := progress.values.get("images_per_second"):
            self.rates.add(trial.config, shared * rate, "this launch")

    def count(self, trials: Sequence[Trial], state: str) -> int:
        """How many of the runs are in a state."""
        return sum(self[trial].state == state for trial in trials)

    def in_state(self, state: str) -> list[Trial]:
        """The runs in a state."""
        return [trial for trial in self.plan.trials if self[trial].state == state]

    def left(self) -> str:
        """The time that is left, in words; "more than" where runs of unknown speed wait."""
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
    """A line when a run begins or ends, and one every half minute, for logs."""

    def __init__(self, runs: Runs, stream: TextIO, seconds: float = 30) -> None:
        """`seconds`: between two lines of a run."""
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
    """A table that lives in the terminal: a line for each row, below it one for each running run, and the failures."""

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
        """What stands on the screen now."""
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
            # Until the first line of metrics the log says what it is at: loading, compiling, waiting.
            text = errors(progress) if progress.values else progress.said
            now.add_row(trial.name, bar, f"{progress.step}/{trial.steps}", Text(text, overflow="ellipsis"))
        parts: list[RenderableType] = [rows, Text(), now]
        for trial in runs.in_state("failed"):
            last = runs[trial].text.strip().splitlines()[-1:] or ["?"]
            parts.append(Text(f"{trial.name} failed: {last[0]}", "red", overflow="ellipsis", no_wrap=True))
        done, total = len(runs.in_state("done")), len(runs.plan.trials)
        parts.append(Text(f"{done} of {total} runs done; time left: {runs.left()}", "bold"))
        return Group(*parts)


def errors(progress: Progress) -> str:
    """What is known of a run's errors and speed."""
    forms = (("train_error", "train error {:.2f} %"), ("test_error", "test error {:.2f} %"),
             ("images_per_second", "{:,.0f} images/s"))  # fmt: skip
    known = [form.format(progress.values[name]) for name, form in forms if name in progress.values]
    return "  ".join(known) or "no step is recorded yet"


def tail(path: Path) -> list[str]:
    """The last whole lines of a text file, none if there is no file."""
    try:
        with path.open("rb") as file:
            file.seek(max(0, file.seek(0, 2) - TAIL))
            return [line for line in file.read().decode(errors="replace").splitlines() if line.strip()]
    except OSError:
        return []


def make_board(runs: Runs, stream: TextIO | None = None) -> PlainBoard | LiveBoard:
    """The live table if the stream (stderr by default) is a terminal, else plain lines."""
    stream = stream or sys.stderr
    return LiveBoard(runs, Console(file=stream)) if stream.isatty() else PlainBoard(runs, stream)
