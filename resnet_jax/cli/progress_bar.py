"""Shows the progress of a long command: a live bar in a terminal, a line every few seconds elsewhere."""

import contextlib
import sys
import time
from collections.abc import Callable, Iterator
from typing import TextIO

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from resnet_jax.training.progress import TimeLeft, is_live

#: Called with (done, total).
Report = Callable[[int, int], None]


@contextlib.contextmanager
def progress_bar(title: str, stream: TextIO | None = None, seconds: float = 10) -> Iterator[Report]:
    """Gives a function to be called with (done, total).

    Args:
      title: of the work.
      stream: stderr by default.
      seconds: minimum between two lines where the stream is no terminal.
    """
    stream = stream or sys.stderr
    if not is_live(stream):
        yield _lines(title, stream, seconds)
        return
    columns = (TextColumn("{task.description}"), BarColumn(bar_width=30), MofNCompleteColumn(), TimeElapsedColumn(),
               TimeRemainingColumn())  # fmt: skip
    with Progress(*columns, console=Console(file=stream)) as progress:
        task = progress.add_task(title, total=None)
        yield lambda done, total: progress.update(task, completed=done, total=total)


def _lines(title: str, stream: TextIO, seconds: float) -> Report:
    began = last = time.monotonic()
    ended = False
    left: TimeLeft | None = None

    def report(done: int, total: int) -> None:
        nonlocal last, left, ended
        now = time.monotonic()
        if left is None:  # work that is continued begins in the middle
            left = TimeLeft(total)
            left.update(done - 1, began)
        remaining = left.update(done, now)
        if ended or (now - last < seconds and done < total):
            return
        last, ended = now, done >= total
        time_left = "" if remaining is None else f"  {remaining:.0f} s left"
        with contextlib.suppress(OSError):  # nobody reads it any more
            print(f"{title}: {done}/{total}{time_left}", file=stream, flush=True)

    return report
