"""`python -m benchmarks NAME`: measures, prints a table and, with --write, puts it into docs/."""

import importlib
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks import ROOT, memory, slices
from benchmarks.docs_tables import measured_on, write_between
from resnet_jax.cli.arguments import Parser, number
from resnet_jax.cli.run_command import run_command
from resnet_jax.errors import UserError


class Benchmark(NamedTuple):
    """A benchmark.

    Attributes:
      module: `measure` takes the options and returns what it found; `report` makes the text of it.
      page: of docs/, which shows the text; empty if none does.
      help: what is measured.
      options: names and arguments of argparse.
      fixed: further arguments of `measure`.
      kept: whether it keeps records of its own, which say when and where each was measured.
    """

    module: str
    page: str
    help: str
    options: dict[str, dict[str, Any]]
    fixed: dict[str, Any] = {}
    kept: bool = False


def _names(text: str) -> list[str]:
    return [name for name in text.split(",") if name]


def _numbers(text: str) -> list[int]:
    return [int(number) for number in _names(text)]


def _count(default: int, text: str) -> dict[str, Any]:
    return {"type": number(int, "a whole number of 1 or more", 1), "default": default, "help": f"{text} (%(default)s)"}


def _seconds(default: float, text: str = "of one turn") -> dict[str, Any]:
    kind = number(float, "a number of 0 or more", 0)
    return {"type": kind, "default": default, "help": f"{text} (%(default)s)"}


_STEP: dict[str, dict[str, Any]] = {
    "model": {"dest": "models", "type": _names, "default": ["cifar_resnet20"], "metavar": "NET[@SIZE][,...]",
              "help": "nets, and the side of their images in pixels (cifar_resnet20)"},
    "peer": {"dest": "peers", "type": _names, "default": ["flax_example"], "metavar": "PEER[,PEER]",
             "help": "torch, flax_example, xla, whole_batch"},
    "batch_size": {"type": int, "default": 0, "help": "0: 128 for CIFAR's nets, 32 for ImageNet's"},
    "image_size": {"type": int, "default": 0, "help": "in pixels; 0: the size that a net was published for"},
    "bn_group_size": {"type": int, "default": 0, "help": "examples that share batch statistics in our nets, with "
                      "--peer=whole_batch; 0: the whole batch"},
    "dtype": {"choices": ("float32", "bfloat16"), "default": "float32", "help": "of the computation (%(default)s)"},
    "variants": {"type": _names, "default": [], "help": "of torch: contiguous, channels_last, either +compile; of "
                 "several the fastest counts. By default both on CPU, channels_last+compile on a GPU"},
    "seconds": _seconds(3), "rounds": _count(10, "turns of each"),
}  # fmt: skip


def _memory(nets: Sequence[str], ways: Sequence[str]) -> dict[str, dict[str, Any]]:
    return {
        "model": {"dest": "nets", "type": _names, "default": nets, "metavar": "NET[,NET...]", "help": "nets"},
        "ways": {"type": _names, "default": ways, "help": "of plain, remat, scan, scan+remat"},
        "batch_size": {"type": int, "default": 0, "help": "0: the papers' 128 and 256"},
        "limit": {"type": float, "default": 1800, "help": "seconds until a compilation is given up (%(default)s)"},
    }


def _slices(rows: Sequence[str]) -> dict[str, dict[str, Any]]:
    return {
        "rows": {"type": _names, "default": list(rows), "metavar": "NET[+FIELD...][/IMAGES]@CHIP:SIDES[,...]",
                 "help": f"nets, with {', '.join(slices.FIELDS)}, and slices, e.g. {rows[0]}"},
        "again": {"action": "store_true", "help": "compile rows anew that results/slices.json has"},
        "limit": _count(900, "CPU seconds until a compilation is given up"),
    }  # fmt: skip


BENCHMARKS = {
    "differences": Benchmark(
        "differences", "docs/training.md",
        "how far a run differs with the number of devices, processes and micro-batches",
        {"steps": _count(100, "steps to take")}),
    "checkpoint_overhead": Benchmark(
        "checkpoint_overhead", "docs/training.md", "what a checkpoint every 100 steps costs a digits run",
        {"every": _count(100, "steps between checkpoints"), "repeats": _count(5, "rounds")}),
    "finetuning": Benchmark(
        "finetuning", "docs/finetuning.md", "fine-tuning from CIFAR-10 to few digits, beside training from scratch",
        {"weights": {"required": True, "help": "of a cifar_resnet20 trained on CIFAR-10"},
         "steps": _count(60, "of each run"), "seeds": _count(2, "runs of each way")}),
    "detectors": Benchmark(
        "detectors", "docs/detection.md", "Faster R-CNN on BCCD beside torchvision's: a step, and AP50",
        {"data": {"required": True, "help": "the folder of BCCD"},
         "weights": {"required": True, "help": "of a cifar_resnet20 trained on CIFAR-10"},
         "run": {"help": "a finished run of configs/bccd.py; unset: only steps are timed"},
         "seconds": _seconds(5), "rounds": _count(7, "turns of each")}),
    "input_pipeline": Benchmark(
        "input_pipeline", "docs/input_pipeline.md",
        "images per second and core of ways to read, decode and crop ImageNet's files",
        {"data_dir": {"type": Path, "default": "../shared/data/imagenet_sample", "help": "images (%(default)s)"},
         "seconds": _seconds(5, "for each row"),
         "peer_python": {"dest": "pythons", "action": "append", "default": [], "metavar": "PATH",
                         "help": "an interpreter that has TensorFlow or PyTorch; may be repeated"}}),
    "train_step": Benchmark(
        "train_step", "docs/performance.md", "the training step beside PyTorch's and a minimal Flax one", _STEP,
        {"kind": "train_step"}),
    "eval": Benchmark(
        "train_step", "docs/performance.md", "the same of the evaluation step", _STEP, {"kind": "eval"}),
    "learning": Benchmark(
        "learning", "docs/results.md", "what a run learned beside PyTorch, from the same weights on the same batches",
        {"run": {"required": True, "help": "its folder"}, "steps": _count(200, "from the start"),
         "data_dir": {"help": "where the data are, if not where the run found them"}}),
    "kernels": Benchmark(
        "kernels", "docs/performance.md", "layers and their gradients on a CPU, XLA's and ours",
        {"rounds": _count(15, "turns of each")}),
    "startup": Benchmark(
        "startup", "docs/performance.md", "from a command to its answer: help, and the first step",
        {"net": {"dest": "nets", "type": _names, "default": ["resnet20", "resnet56"],
                 "help": "on digits (resnet20,resnet56)"},
         "repeats": _count(5, "of each")}),
    "end_to_end": Benchmark(
        "end_to_end", "docs/performance.md", "a real run beside its bare step: what the loop costs",
        {"net": {"default": "resnet20", "help": "on digits (%(default)s)"}, "steps": _count(400, "of one run"),
         "rounds": _count(7, "runs")}),
    "memory": Benchmark(
        "memory", "docs/performance.md", "memory and compile time of each net's step, from its program",
        _memory(memory.NETS, ("plain", "remat"))),
    "deep": Benchmark(
        "memory", "docs/performance.md", "the same for nets of 110 layers and more, unrolled and as a loop",
        _memory(memory.DEEP, tuple(memory.WAYS))),
    "scaling": Benchmark(
        "scaling", "docs/scaling.md", "over virtual CPU devices, and what they send each other",
        {"model": {"default": "cifar_resnet20", "help": "the net that is run (%(default)s)"},
         "batch_size": {"type": int, "default": 32, "help": "of one device (weak), or of the whole by 8 (strong)"},
         "devices": {"type": _numbers, "default": [1, 2, 4, 8], "help": "numbers of virtual devices (1,2,4,8)"},
         "seconds": _seconds(3), "rounds": _count(5, "turns")}),
    "slices": Benchmark(
        "slices", "docs/scaling.md", "what steps take on slices of TPUs that are not there, by their compiler",
        _slices(slices.ROWS), kept=True),
    "deep_slices": Benchmark(
        "slices", "docs/scaling.md", "the same for nets of 110 layers and more, unrolled and as a loop",
        _slices(slices.DEEP), kept=True),
    "regression": Benchmark(
        "regression", "", "make bench: whether a ratio is lower than it was",
        {"seconds": _seconds(2), "rounds": _count(8, "turns of each"),
         "record": {"action": "store_true", "help": "write benchmarks/reference.json anew"}}),
}  # fmt: skip


def main(arguments: Sequence[str]) -> int:
    """Runs a benchmark and returns the exit status."""
    # Without the programs that earlier commands compiled: several benchmarks measure how long compiling takes.
    return run_command(lambda: _measure(arguments), compilation_cache=False)


def _measure(arguments: Sequence[str]) -> None:
    parser = Parser(prog="python -m benchmarks", description=__doc__)
    commands = parser.add_subparsers(dest="name", required=True)
    for name, benchmark in BENCHMARKS.items():
        command = commands.add_parser(name, help=benchmark.help)
        if benchmark.page:
            command.add_argument("--write", action="store_true", help=f"put the table into {benchmark.page}")
        command.add_argument("--json", action="store_true", help="print one JSON object, and nothing else")
        for option, details in benchmark.options.items():
            command.add_argument(f"--{option}", **details)
    options = vars(parser.parse_args(arguments))
    name, write, as_json = options.pop("name"), options.pop("write", False), options.pop("json")
    if write and as_json:
        raise UserError("--write puts a table into a page: leave out --json")

    benchmark = BENCHMARKS[name]
    module = importlib.import_module(f"benchmarks.{benchmark.module}")
    found = module.measure(**benchmark.fixed, **options)
    text = json.dumps(found) if as_json else module.report(found)
    if not as_json and not benchmark.kept:
        text += f"\n\n{measured_on()}"
    print(text)
    if write:
        write_between(ROOT / benchmark.page, name, text)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
