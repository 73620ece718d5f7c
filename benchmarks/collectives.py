"""Counts the bytes that a compiled program sends between devices, from its text."""

import json
import math
import re
import sys
from collections.abc import Iterator
from typing import Any

import jax

from benchmarks.paired_timing import time_in_turn
from benchmarks.resnet_jax_step import implementation, make_benchmark_trainer
from resnet_jax.training.trainer import Trainer

#: Bytes of an element, by HLO's names.
BYTES = {"pred": 1, "s8": 1, "u8": 1, "bf16": 2, "f16": 2, "s16": 2, "u16": 2, "s32": 4, "u32": 4, "f32": 4, "s64": 8,
         "u64": 8, "f64": 8}  # fmt: skip

# `%name = f32[16]{0} all-reduce(...)`, or a tuple of shapes; a `-start` has the results of its `-done`.
_ALL_REDUCE = re.compile(r"= (\(.*?\)|\S+) all-reduce(?:-start)?\(")
_SHAPE = re.compile(r"([a-z]+[0-9]*)\[([0-9,]*)\]")


def all_reduces(text: str) -> list[int]:
    """Returns the bytes of each all-reduce in a program's HLO."""
    return [sum(_sizes(found.group(1))) for line in text.splitlines() if (found := _ALL_REDUCE.search(line))]


def _sizes(shapes: str) -> Iterator[int]:
    for kind, dimensions in _SHAPE.findall(shapes):
        yield BYTES[kind] * math.prod(int(d) for d in dimensions.split(",") if d)


def count(trainer: Trainer) -> dict[str, Any]:
    """Returns number and bytes of a training step's all-reduces on all devices, and the net's parameters."""
    lowered = trainer.train_step.lower(trainer.init(), trainer.pipeline.train, trainer.pipeline.train_inputs(0, 1))
    found = all_reduces(lowered.compile().as_text() or "")
    return {"all_reduces": len(found), "bytes": sum(found), "params": trainer.summary.params,
            "forward": trainer.summary.flops}  # fmt: skip


def measure(name: str, batch_size: int, seconds: float, rounds: int) -> dict[str, Any]:
    """Returns what `count` says, and images per second, on all devices of this process."""
    trainer = make_benchmark_trainer(name, batch_size)
    found = time_in_turn({"ours": implementation(trainer).losses}, seconds, rounds)["ours"]
    return {"devices": jax.device_count(), "batch_size": batch_size, "images_per_second": found.rate * batch_size,
            **count(trainer)}  # fmt: skip


if __name__ == "__main__":
    print(json.dumps(measure(sys.argv[1], int(sys.argv[2]), float(sys.argv[3]), int(sys.argv[4]))))
