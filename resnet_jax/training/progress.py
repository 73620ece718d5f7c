"""What a person sees while a run trains: a live display in a terminal, plain lines elsewhere."""

import dataclasses
import sys
import time
from collections.abc import Mapping
from typing import Protocol, Self, TextIO

from rich.console import Console, Group
from rich.live import Live
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn
from rich.text import Text


class ProgressDisplay(Protocol):
    """Shows runs, one after another or several in turn, inside a `with`."""

    def __enter__(self) -> Self: ...

    def __exit__(self, *exception: object) -> None: ...

    def start(self, title: str, step: int, steps: int) -> None:
        """A run begins, or goes on, at `step` of `steps`."""

    def turn(self, title: str) -> None:
        """What follows is of the run of this title, which has started."""

    def status(self, text: str) -> None:
        """The run is busy with something else than steps, such as compiling."""

    def note(self, text: str) -> None:
        """Something that the reader should know and that stays on the screen."""

    def update(self, step: int, values: Mapping[str, float], *, line: bool) -> None:
        """`step` steps are done.

        Args:
          step: steps done.
          values: the newest of loss, train_error, test_error, images_per_second, step_seconds, data_wait and
            device_memory that there are.
          line: whether this is a line of metrics.jsonl.
        """


class NoProgress:
    """Shows nothing."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None: ...

    def start(self, title: str, step: int, steps: int) -> None: ...

    def turn(self, title: str) -> None: ...

    def status(self, text: str) -> None: ...

    def note(self, text: str) -> None: ...

    def update(self, step: int, values: Mapping[str, float], *, line: bool) -> None: ...


class Turn:
    """One of several runs that a display shows in turn."""

    def __init__(self, display: ProgressDisplay) -> None:
        self._display, self._title = display, ""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None: ...

    def start(self, title: str, step: int, steps: int) -> None:
        self._title = title
        self._display.start(title, step, steps)

    def turn(self, title: str) -> None:
        self._display.turn(title)

    def status(self, text: str) -> None:
        self._mine().status(text)

    def note(self, text: str) -> None:
        self._mine().note(text)

    def update(self, step: int, values: Mapping[str, float], *, line: bool) -> None:
        self._mine().update(step, values, line=line)

    def _mine(self) -> ProgressDisplay:
        self._display.turn(self._title)
        return self._display


def _number(values: Mapping[str, float], name: str, form: str) -> str:
    return format(values[name], form) if name in values else "-"


def _speed(values: Mapping[str, float]) -> str:
    """ "3,337 images/s, 19 ms a step, 0.5 % waiting for data, 3.1 GiB", as far as it is known."""
    parts = []
    if "images_per_second" in values:
        parts.append(f"{values['images_per_second']:,.0f} images/s")
    if "step_seconds" in values:
        parts.append(f"{1000 * values['step_seconds']:.3g} ms a step")
    if "data_wait" in values:
        parts.append(f"{values['data_wait']:.1f} % waiting for data")
    if "device_memory" in values:
        parts.append(f"{values['device_memory']:.1f} GiB")
    return ", ".join(parts)


@dataclasses.dataclass
class _Begun:
    """A run on the screen: the step that it began at and its number of steps; when it began, and was last shown."""

    first: int
    steps: int
    began: float
    last: float


class PlainProgress:
    """A line every few seconds and at the end, for logs."""

    def __init__(self, stream: TextIO, seconds: float = 10) -> None:
        """`seconds`: the least time between two lines of one run."""
        self._stream, self._seconds = stream, seconds
        self._runs: dict[str, _Begun] = {}
        self._title = ""  # before the first run

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None: ...

    def start(self, title: str, step: int, steps: int) -> None:
        now = time.monotonic()
        self._runs[title] = _Begun(step, steps, now, now)
        self.turn(title)
        self._print(f"from step {step} of {steps}")

    def turn(self, title: str) -> None:
        self._title = title

    def status(self, text: str) -> None:
        self._print(text)

    def note(self, text: str) -> None:
        self._print(text)

    def update(self, step: int, values: Mapping[str, float], *, line: bool) -> None:
        now, run = time.monotonic(), self._runs[self._title]
        due = now - run.last >= self._seconds or (line and step == run.steps)
        if not due:
            return
        run.last = now
        left = (now - run.began) / max(step - run.first, 1) * (run.steps - step)
        self._print(
            f"step {step}/{run.steps}  loss {_number(values, 'loss', '.3f')}"
            f"  train error {_number(values, 'train_error', '.2f')} %"
            f"  test error {_number(values, 'test_error', '.2f')} %"
            f"  {_speed(values)}, {left:.0f} s left"
        )

    def _print(self, text: str) -> None:
        print(f"{self._title}: {text}" if self._title else text, file=self._stream, flush=True)


class RichProgress:
    """A table that lives in the terminal, with a row for each run and a line on what the present one is doing.

    80 columns are enough for all of it.
    """

    def __init__(self, console: Console) -> None:
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=10),
            MofNCompleteColumn(),
            TextColumn("error {task.fields[train]} / {task.fields[test]}"),
            TimeRemainingColumn(compact=True),
            console=console,
        )
        self._now = Text("", no_wrap=True, overflow="ellipsis")
        self._live = Live(Group(self._progress, self._now), console=console, refresh_per_second=10)
        self._tasks: dict[str, TaskID] = {}

    def __enter__(self) -> Self:
        self._live.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._live.stop()

    def start(self, title: str, step: int, steps: int) -> None:
        self._tasks[title] = self._progress.add_task(title, total=steps, completed=step, train="-", test="-")
        self.turn(title)

    def turn(self, title: str) -> None:
        self._task = self._tasks[title]

    def status(self, text: str) -> None:
        self._now.plain = f"  {text}"

    def note(self, text: str) -> None:
        self._live.console.print(text, markup=False, highlight=False)

    def update(self, step: int, values: Mapping[str, float], *, line: bool) -> None:
        self._progress.update(
            self._task,
            completed=step,
            train=_number(values, "train_error", ".1f"),
            test=_number(values, "test_error", ".1f") + " %",
        )
        self._now.plain = f"  loss {_number(values, 'loss', '.3f')}, {_speed(values)}"


def make_progress(stream: TextIO | None = None) -> ProgressDisplay:
    """The live display if the stream (stderr by default) is a terminal, else plain lines."""
    stream = stream or sys.stderr
    return RichProgress(Console(file=stream)) if stream.isatty() else PlainProgress(stream)
