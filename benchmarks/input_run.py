"""Measures how decoding scales with threads, how memory grows, and how long steps wait for input."""

import os
import sys
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.local_processes import answer
from benchmarks.paired_timing import ratio, time_in_turn
from resnet_jax.data.imagenet.loaders import TrainLoader, default_workers
from resnet_jax.data.imagenet.shards import ShardSource
from resnet_jax.data.imagenet.source import Source

BATCH = 32

#: Turns of each number of threads.
ROUNDS = 5


def _loader(source: Source, size: int, workers: int = 0) -> TrainLoader:
    return TrainLoader(source, seed=0, batch_size=BATCH, rows=(0, BATCH), size=size, crop="aspect", sides=(256, 480),
                       workers=workers)  # fmt: skip


def scaling(source: Source, size: int, seconds: float) -> list[dict[str, Any]]:
    """Returns images per second of wall time with one thread and with one for each core, in turn."""
    counts = sorted({1, default_workers()})
    loaders = [_loader(source, size, count) for count in counts]
    works = {str(n): lambda count, one=one: one.batches(range(count)) for n, one in zip(counts, loaders, strict=True)}
    found = time_in_turn(works, seconds / ROUNDS, ROUNDS)
    return [
        {"threads": int(threads), "images_per_second": round(BATCH * rounds.rate, 1),
         "times_one": round(ratio(rounds.rates, found["1"].rates), 2)}
        for threads, rounds in found.items()
    ]  # fmt: skip


def resident_bytes() -> int:
    """Returns the bytes of memory that this process uses now."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def memory(shards: Path, size: int, batches: int) -> dict[str, Any]:
    """Returns how memory grows while batches are read as in a run, from the tenth on.

    It is measured in a new process: elsewhere a leak could hide in memory that was freed before.
    """
    grown = answer(["-m", "benchmarks.input_run", str(shards), str(size), str(batches)], "reading batches")
    return {"batches": batches, "images": batches * BATCH, "grown_mib": grown}


def growth(loader: TrainLoader, batches: int) -> float:
    """Returns the MiB by which this process grows over so many batches, from the tenth on."""
    for number in range(10 + batches):
        if number == 10:
            before = resident_bytes()
        loader.batches([number], range(number + 1, number + 4))
    return round((resident_bytes() - before) / 2**20, 1)


def data_wait(data_dir: Path, workdir: Path, steps: int) -> dict[str, Any]:
    """Trains resnet18 at 64 pixels and returns how long steps wait: medians of the lines after the first."""
    from configs.imagenet import get_config
    from resnet_jax.training.loop import fit
    from resnet_jax.training.run_record import RunRecord

    config = get_config("resnet18")
    config.update({"steps": steps, "batch_size": BATCH, "log_every": 2, "eval_every": steps, "checkpoint_every": steps})
    config.data.update({"data_dir": str(data_dir), "image_size": 64, "shorter_side": (64, 72), "eval_shorter_side": 72,
                        "crop": "aspect"})  # fmt: skip
    fit(config, workdir)
    lines = [line for line in RunRecord(workdir).lines() if "data_wait" in line][1:]
    return {
        "steps": steps,
        "images_per_second": float(np.median([line["images_per_second"] for line in lines])),
        "percent": float(np.median([line["data_wait"] for line in lines])),
        "most_percent": max(line["data_wait"] for line in lines),
    }


def sentences(grown: dict[str, Any], wait: dict[str, Any]) -> str:
    """Returns both results in sentences."""
    return (
        f"Over {grown['batches']:,} batches ({grown['images']:,} images) memory grew by {grown['grown_mib']:.1f} MiB.\n"
        f"A run of resnet18 at 64 pixels, {wait['images_per_second']:,.0f} images/s, waited {wait['percent']:.1f} % of "
        f"its time for input (`data_wait`, the median of its lines; {wait['most_percent']:.1f} % at most)."
    )


if __name__ == "__main__":
    print(growth(_loader(ShardSource(Path(sys.argv[1]), "train"), int(sys.argv[2])), int(sys.argv[3])))
