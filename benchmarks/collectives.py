"""Counts the bytes that a compiled program sends between devices, from its text."""

import json
import sys
from typing import Any

import jax

from benchmarks.paired_timing import time_in_turn
from benchmarks.resnet_jax_step import implementation, make_benchmark_trainer
from resnet_jax.aot.hlo import instructions
from resnet_jax.training.trainer import Trainer


def all_reduces(text: str) -> list[int]:
    """Returns the bytes of each all-reduce in a program's HLO; a `-start` has the results of its `-done`."""
    return [one.bytes for one in instructions(text) if one.operation in ("all-reduce", "all-reduce-start")]


def count(trainer: Trainer) -> dict[str, Any]:
    """Returns number and bytes of a training step's all-reduces on all devices, and the net's parameters."""
    lowered = trainer.train_step.lower(trainer.init(), trainer.pipeline.train, trainer.pipeline.train_inputs(0, 1))
    found = all_reduces(lowered.compile().as_text() or "")
    return {"all_reduces": len(found), "bytes": sum(found), "params": trainer.summary.params}


def measure(name: str, batch_size: int, seconds: float, rounds: int) -> dict[str, Any]:
    """Returns what `count` says, and images per second, on all devices of this process."""
    trainer = make_benchmark_trainer(name, batch_size)
    found = time_in_turn({"ours": implementation(trainer).losses}, seconds, rounds)["ours"]
    return {"devices": jax.device_count(), "batch_size": batch_size, "images_per_second": found.rate * batch_size,
            **count(trainer)}  # fmt: skip


if __name__ == "__main__":
    print(json.dumps(measure(sys.argv[1], int(sys.argv[2]), float(sys.argv[3]), int(sys.argv[4]))))
