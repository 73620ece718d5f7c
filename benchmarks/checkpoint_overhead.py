"""Measures what a checkpoint every 100 steps costs a digits run: the same run with and without, in turn.

python -m benchmarks checkpoint_overhead --write
"""

import shutil
import statistics
import time
from collections.abc import Callable
from pathlib import Path

from benchmarks.docs_tables import table
from configs.digits import get_config
from resnet_jax.training.loop import fit
from resnet_jax.training.progress import ProgressDisplay


class _Stopwatch(ProgressDisplay):
    """Takes the time from the end of one step to the end of another, without compilation and the last checkpoint."""

    def __init__(self, first: int, last: int) -> None:
        self.first, self.last = first, last
        self.began = self.ended = 0.0

    def update(self, step: int, values: object, *, line: bool) -> None:
        if line and step == self.first:
            self.began = time.monotonic()
        if line and step == self.last:
            self.ended = time.monotonic()


def measure(folder: Path, every: int, repeats: int, note: Callable[[str], None]) -> tuple[list[float], list[float]]:
    """Returns the seconds of 400 steps of ResNet-20 without checkpoints, and with one every `every` steps."""
    seconds: dict[int, list[float]] = {10**6: [], every: []}
    for repeat in range(repeats):
        for interval, found in seconds.items():
            note(f"round {repeat + 1} of {repeats}, a checkpoint every {interval} steps")
            config = get_config("resnet20")
            # The last step always saves a checkpoint: it comes 30 steps after the timed ones.
            config.update({"steps": 510, "log_every": 10, "eval_every": 510, "checkpoint_every": interval})
            watch = _Stopwatch(80, 480)
            fit(config, folder / "run", watch)
            found.append(watch.ended - watch.began)
            shutil.rmtree(folder / "run")
    return seconds[10**6], seconds[every]


def report(without: list[float], with_: list[float], every: int) -> str:
    """Returns the table: medians, spread and the cost in percent."""
    a, b = statistics.median(without), statistics.median(with_)
    rows = [
        ["none", f"{a:.2f}", f"{min(without):.2f} - {max(without):.2f}", "-"],
        [f"every {every} steps", f"{b:.2f}", f"{min(with_):.2f} - {max(with_):.2f}", f"{100 * (b / a - 1):+.1f} %"],
    ]
    return table(["checkpoints", "seconds for 400 steps (median)", "least - most", "cost"], rows)
