"""Shows how far a run is: a live display in a terminal, plain lines elsewhere."""

import contextlib
import sys
import time
from collections import deque
from collections.abc import Mapping
from typing import Self, TextIO

from rich.console import Console, Group
from rich.live import Live
from rich.progress import MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.text import Text

from resnet_jax.errors import printable
from resnet_jax.tasks.task import spelt

#: Seconds of which the speed is taken for the time left: a run speeds up after it has compiled, and when others end.
RECENT_SECONDS = 60


class ProgressDisplay:
    """Shows runs, one after another, inside a `with`. This one shows nothing."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        """Ends the display."""

    def start(self, title: str, step: int, steps: int, shown: Mapping[str, str]) -> None:
        """Begins the display of a run, at `step` of `steps`; `shown` are the task's metrics with their units."""

    def status(self, text: str) -> None:
        """Shows that the run is busy with something else than steps, such as compiling."""

    def note(self, text: str) -> None:
        """Shows something that the reader should know and that stays on the screen."""

    def update(self, step: int, values: Mapping[str, float], *, line: bool) -> None:
        """Shows that `step` steps are done.

        Args:
          step: steps done.
          values: what is new: the task's metrics, loss, images_per_second, step_seconds, data_wait, device_memory.
          line: whether this is a line of metrics.jsonl; otherwise, it is the last step of a dispatch.
        """


def _number(values: Mapping[str, float], name: str, form: str) -> str:
    return format(values[name], form) if name in values else "-"


def _speed(values: Mapping[str, float]) -> str:
    """Returns "3,337 images/s, 19 ms a step, 0.5 % waiting for data, 3.1 GiB", as far as it is known."""
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


def _metrics(shown: Mapping[str, str], values: Mapping[str, float]) -> str:
    """Returns "train/test error 2.3/5.6 %": metrics of one kind together, so that a line of 80 columns holds them."""
    kinds: dict[str, list[str]] = {}
    for name in shown:
        kinds.setdefault(name.partition("_")[2], []).append(name)
    parts = []
    for kind, names in kinds.items():
        sets = "/".join(name.partition("_")[0] for name in names)
        numbers = "/".join(_number(values, name, ".1f" if shown[name] else ".3g") for name in names)
        parts.append(f"{sets} {spelt(kind)} {numbers} {shown[names[0]]}".rstrip())
    return "  ".join(parts)


class TimeLeft:
    """Estimates the time left from the speed of the last minute, evaluations included and compilation left out."""

    def __init__(self, steps: int) -> None:
        self._steps = steps
        self._marks: deque[tuple[float, int]] = deque()

    def update(self, step: int, now: float) -> float | None:
        """Takes in that `step` steps are done, and returns the seconds that the others take, if that is known.

        Args:
          step: steps done.
          now: the time, of `time.monotonic`.
        """
        if self._marks and step < self._marks[-1][1]:  # the run went back
            self._marks.clear()
        self._marks.append((now, step))
        while len(self._marks) > 2 and now - self._marks[1][0] > RECENT_SECONDS:
            self._marks.popleft()
        began, first = self._marks[0]
        if step >= self._steps:
            return 0.0
        return None if step == first else (now - began) / (step - first) * (self._steps - step)


class PlainProgress(ProgressDisplay):
    """Prints a line every few seconds and one at the end, for logs. What nobody reads any more is no harm to a run."""

    def __init__(self, stream: TextIO, seconds: float = 10) -> None:
        """`seconds`: the least time between two lines of one run."""
        self._stream, self._seconds, self._title = stream, seconds, ""

    def start(self, title: str, step: int, steps: int, shown: Mapping[str, str]) -> None:
        self._title, self._steps, self._shown = title, steps, shown
        self._last, self._left = time.monotonic(), TimeLeft(steps)
        self._values: dict[str, float] = {}
        self._print(f"from step {step} of {steps}")

    def status(self, text: str) -> None:
        self._print(text)

    def note(self, text: str) -> None:
        self._print(text)

    def update(self, step: int, values: Mapping[str, float], *, line: bool) -> None:
        now = time.monotonic()
        left = self._left.update(step, now)
        self._values |= values
        if step == self._steps:
            # The last evaluation comes behind the last training line: one line has both.
            evaluated = [name for name in self._shown if not name.startswith("train_")]
            if not line or (evaluated and not any(name in values for name in evaluated)):
                return
        elif now - self._last < self._seconds:
            return
        self._last = now
        metrics = "".join(
            f"  {spelt(name)} {_number(self._values, name, '.2f')} {unit}".rstrip()
            for name, unit in self._shown.items()
        )
        parts = [part for part in (_speed(self._values), "" if left is None else f"{left:.0f} s left") if part]
        self._print(
            f"step {step}/{self._steps}  loss {_number(self._values, 'loss', '.3f')}{metrics}  {', '.join(parts)}"
        )

    def _print(self, text: str) -> None:
        with contextlib.suppress(OSError):  # a full disk, or `2>&1 | head`
            print(printable(f"{self._title}: {text}" if self._title else text), file=self._stream, flush=True)


class RichProgress(ProgressDisplay):
    """Shows a table that lives in the terminal, with a row for each run and a line on what the present one is doing.

    80 columns are enough for all of it.
    """

    def __init__(self, console: Console) -> None:
        self._progress = Progress(
            TextColumn("{task.description}"),
            MofNCompleteColumn(),
            TextColumn("{task.fields[metrics]}"),
            TimeRemainingColumn(compact=True),
            console=console,
            speed_estimate_period=RECENT_SECONDS,
        )
        self._now = Text("", no_wrap=True, overflow="ellipsis")
        self._live = Live(Group(self._progress, self._now), console=console, refresh_per_second=10)

    def __enter__(self) -> Self:
        self._live.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._live.stop()

    def start(self, title: str, step: int, steps: int, shown: Mapping[str, str]) -> None:
        self._shown, self._values = shown, dict[str, float]()
        self._task = self._progress.add_task(title, total=steps, completed=step, metrics=_metrics(shown, {}))

    def status(self, text: str) -> None:
        self._now.plain = f"  {text}"

    def note(self, text: str) -> None:
        self._live.console.print(printable(text), markup=False, highlight=False)

    def update(self, step: int, values: Mapping[str, float], *, line: bool) -> None:
        self._values |= values
        self._progress.update(self._task, completed=step, metrics=_metrics(self._shown, self._values))
        self._now.plain = f"  loss {_number(self._values, 'loss', '.3f')}, {_speed(self._values)}"


def make_progress(stream: TextIO | None = None) -> ProgressDisplay:
    """Returns the live display if the stream (stderr by default) is a terminal that has one, else plain lines."""
    stream = stream or sys.stderr
    return RichProgress(Console(file=stream)) if is_live(stream) else PlainProgress(stream)


def is_live(stream: TextIO) -> bool:
    """Returns whether lines can be drawn again on a stream: not in a pipe, nor in a terminal with TERM=dumb."""
    return stream.isatty() and not Console(file=stream).is_dumb_terminal
