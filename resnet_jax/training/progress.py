"""Shows how far a run is: a live display in a terminal, plain lines elsewhere."""

import sys
import time
from collections.abc import Mapping
from typing import Self, TextIO

from rich.console import Console, Group
from rich.live import Live
from rich.progress import MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.text import Text


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
        parts.append(f"{sets} {kind.replace('_', ' ')} {numbers} {shown[names[0]]}".rstrip())
    return "  ".join(parts)


class PlainProgress(ProgressDisplay):
    """Prints a line every few seconds and at the end, for logs."""

    def __init__(self, stream: TextIO, seconds: float = 10) -> None:
        """`seconds`: the least time between two lines of one run."""
        self._stream, self._seconds, self._title = stream, seconds, ""

    def start(self, title: str, step: int, steps: int, shown: Mapping[str, str]) -> None:
        self._title, self._first, self._steps, self._shown = title, step, steps, shown
        self._began = self._last = time.monotonic()
        self._values: dict[str, float] = {}
        self._print(f"from step {step} of {steps}")

    def status(self, text: str) -> None:
        self._print(text)

    def note(self, text: str) -> None:
        self._print(text)

    def update(self, step: int, values: Mapping[str, float], *, line: bool) -> None:
        now = time.monotonic()
        self._values |= values
        if now - self._last < self._seconds and not (line and step == self._steps):
            return
        self._last = now
        left = (now - self._began) / max(step - self._first, 1) * (self._steps - step)
        metrics = "".join(
            f"  {name.replace('_', ' ')} {_number(self._values, name, '.2f')} {unit}".rstrip()
            for name, unit in self._shown.items()
        )
        self._print(
            f"step {step}/{self._steps}  loss {_number(self._values, 'loss', '.3f')}{metrics}"
            f"  {_speed(self._values)}, {left:.0f} s left"
        )

    def _print(self, text: str) -> None:
        try:
            print(f"{self._title}: {text}" if self._title else text, file=self._stream, flush=True)
        except BrokenPipeError:  # nobody listens any more
            raise
        except OSError:
            pass  # a log on a full disk, which must not end the run


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
        self._live.console.print(text, markup=False, highlight=False)

    def update(self, step: int, values: Mapping[str, float], *, line: bool) -> None:
        self._values |= values
        self._progress.update(self._task, completed=step, metrics=_metrics(self._shown, self._values))
        self._now.plain = f"  loss {_number(self._values, 'loss', '.3f')}, {_speed(self._values)}"


def make_progress(stream: TextIO | None = None) -> ProgressDisplay:
    """Returns the live display if the stream (stderr by default) is a terminal, else plain lines."""
    stream = stream or sys.stderr
    return RichProgress(Console(file=stream)) if stream.isatty() else PlainProgress(stream)
