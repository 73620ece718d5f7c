"""Measures the seconds from a command to its answer: help, and the first training step, compiled before or not.

python -m benchmarks startup --write
"""

import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks import ROOT, note
from benchmarks.docs_tables import table
from benchmarks.local_processes import last_line
from resnet_jax.cache import FOLDER, LEAST_SECONDS
from resnet_jax.errors import UserError


def run(arguments: list[str], workdir: Path, cache: Path | None) -> tuple[float, float]:
    """Returns the seconds until the first line of metrics (infinite if none comes), and until the command has ended.

    Args:
      arguments: of `python -m resnet_jax`.
      workdir: where its metrics appear.
      cache: folder of compiled programs; none: off.

    Raises:
      UserError: if the command fails.
    """
    environment = {k: v for k, v in os.environ.items() if not k.startswith("JAX_COMPILATION_CACHE")} | {
        "PYTHONPATH": str(ROOT), FOLDER: str(cache or ""), LEAST_SECONDS: "0",  # as resnet_jax.cache has it
    }  # fmt: skip
    metrics, first = workdir / "metrics.jsonl", float("inf")
    began = time.monotonic()
    process = subprocess.Popen(
        [sys.executable, "-m", "resnet_jax", *arguments], cwd=ROOT, env=environment, stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    while process.poll() is None:
        if first == float("inf") and metrics.exists() and metrics.stat().st_size:
            first = time.monotonic() - began
        time.sleep(0.01)
    seconds = time.monotonic() - began
    assert process.stderr is not None
    said = process.stderr.read()
    if process.returncode:
        raise UserError(f"{' '.join(arguments)} failed: {last_line(said)}")
    return (seconds if first == float("inf") and metrics.exists() else first), seconds


def measure(nets: list[str], repeats: int) -> list[dict]:
    """Returns a row for `--help`, and three for each net on digits: without a cache, with an empty and a filled one."""
    with tempfile.TemporaryDirectory() as folder:
        helps = [run(["--help"], Path(folder), None)[1] for _ in range(repeats)]
    rows = [{"command": "--help", "cache": "-", "first_step": None, "seconds": helps}]
    for net in nets:
        filled = tempfile.TemporaryDirectory()
        for name in ("none", "empty", "filled"):
            times = []
            for repeat in range(repeats):
                note(f"{net}, cache {name}, {repeat + 1} of {repeats}")
                if name == "empty":
                    filled = tempfile.TemporaryDirectory()
                with tempfile.TemporaryDirectory() as folder:
                    arguments = ["train", f"--config={ROOT}/configs/digits.py:{net}", f"--workdir={folder}",
                                 "--config.steps=2", "--config.log_every=1"]  # fmt: skip
                    times.append(run(arguments, Path(folder), None if name == "none" else Path(filled.name)))
            first, whole = map(list, zip(*times, strict=True))
            rows.append({"command": f"train {net} on digits", "cache": name, "first_step": first, "seconds": whole})
    return rows


def report(rows: list[dict]) -> str:
    """Returns the table of medians."""
    cells = []
    for row in rows:
        first, whole = row["first_step"], row["seconds"]
        cells.append([
            row["command"], row["cache"], f"{statistics.median(first):.1f}" if first else "-",
            f"{statistics.median(whole):.2f}", f"{min(whole):.2f} - {max(whole):.2f}",
        ])  # fmt: skip
    headings = ["command", "compiled programs", "s to the first step", "s in all, with one evaluation and a checkpoint",
                "least - most"]  # fmt: skip
    return table(headings, cells)
