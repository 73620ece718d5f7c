"""Measures what a checkpoint every 100 steps costs a digits run: the same run with and without, in turn.

python -m benchmarks checkpoint_overhead --write
"""

import statistics
import tempfile
import time
from collections.abc import Mapping

from benchmarks import note
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


def measure(every: int, repeats: int) -> dict[str, list[float]]:
    """Returns the seconds of 400 steps of ResNet-20, without checkpoints and with one every `every` steps."""
    intervals = {"none": 10**6, f"every {every} steps": every}
    found: dict[str, list[float]] = {name: [] for name in intervals}
    for repeat in range(repeats):
        for name, interval in intervals.items():
            note(f"round {repeat + 1} of {repeats}, checkpoints: {name}")
            config = get_config("resnet20")
            # The last step always saves a checkpoint: it comes 30 steps after the timed ones.
            config.update({"steps": 510, "log_every": 10, "eval_every": 510, "checkpoint_every": interval})
            watch = _Stopwatch(80, 480)
            with tempfile.TemporaryDirectory() as folder:
                fit(config, folder, watch)
            found[name].append(watch.ended - watch.began)
    return found


def report(found: Mapping[str, list[float]]) -> str:
    """Returns the table: medians, spread and the cost in percent."""
    without = statistics.median(found["none"])
    rows = []
    for name, seconds in found.items():
        median = statistics.median(seconds)
        cost = "-" if name == "none" else f"{100 * (median / without - 1):+.1f} %"
        rows.append([name, f"{median:.2f}", f"{min(seconds):.2f} - {max(seconds):.2f}", cost])
    return table(["checkpoints", "seconds for 400 steps (median)", "least - most", "cost"], rows)
