"""`python -m benchmarks NAME`: measures, prints a table and, with --write, puts it into docs/."""

import argparse
import os
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NoReturn

from benchmarks.docs_tables import machine, measured_on, write_between
from resnet_jax.cli.arguments import number
from resnet_jax.cli.door import run
from resnet_jax.errors import UserError

ROOT = Path(__file__).resolve().parents[1]


def note(text: str) -> None:
    """Progress, for the person who waits."""
    print(text, file=sys.stderr, flush=True)


def differences(options: argparse.Namespace, folder: Path) -> str:
    """how far a run differs with the number of devices, processes and micro-batches"""
    from benchmarks import differences

    differences.run(folder, options.steps, note)
    return differences.report(folder, options.steps)


def checkpoint_overhead(options: argparse.Namespace, folder: Path) -> str:
    """what a checkpoint every 100 steps costs a digits run"""
    from benchmarks import checkpoint_overhead

    found = checkpoint_overhead.measure(folder, options.every, options.repeats, note)
    return checkpoint_overhead.report(*found, options.every)


def input_pipeline(options: argparse.Namespace, folder: Path) -> str:
    """images a second and core of ways to read, decode and crop ImageNet's files"""
    from benchmarks import input_pipeline

    found = input_pipeline.measure(Path(options.data_dir), folder, options.seconds, options.peer_python, note)
    return input_pipeline.report(found, options.json)


def finetuning(options: argparse.Namespace, folder: Path) -> str:
    """fine-tuning from CIFAR-10 to few digits, beside training from scratch"""
    from benchmarks import finetuning

    found = finetuning.measure(folder, options.weights, options.steps, options.seeds, note)
    return finetuning.report(found, options.steps)


def train_step(options: argparse.Namespace, folder: Path) -> str:
    """the training step beside PyTorch's and a minimal Flax one"""
    from benchmarks import train_step

    if "torch" in options.peer:
        # JAX takes three quarters of a GPU's memory by itself: what is left would be too little for PyTorch.
        os.environ.setdefault("XLA_PYTHON_CLIENT_MEM_FRACTION", "0.5")

    rows = train_step.measure(
        options.name, options.model, options.peer, options.batch_size, options.image_size, options.dtype,
        options.variants, options.seconds, options.rounds, note, options.bn_group_size,
    )  # fmt: skip
    return train_step.report(rows, options.json)


def kernels(options: argparse.Namespace, folder: Path) -> str:
    """layers and their gradients on a CPU, XLA's and ours"""
    from benchmarks import kernels

    return kernels.report(kernels.measure(options.rounds, note))


def startup(options: argparse.Namespace, folder: Path) -> str:
    """from a command to its answer: help, and the first step"""
    from benchmarks import startup

    return startup.report(startup.measure(folder, options.net, options.repeats, note))


def end_to_end(options: argparse.Namespace, folder: Path) -> str:
    """a real run beside its bare step: what the loop costs"""
    from benchmarks import end_to_end

    return end_to_end.report(*end_to_end.measure(folder, options.net, options.steps, options.rounds, note))


def scaling(options: argparse.Namespace, folder: Path) -> str:
    """over virtual devices, and worked out for real ones"""
    from benchmarks import scaling

    found = scaling.measure(options.model, options.batch_size, options.devices, options.seconds, options.rounds, note)
    return scaling.report(found, options.json)


def memory(options: argparse.Namespace, folder: Path) -> str:
    """memory and compile time of each net's step, from the compiled program"""
    from benchmarks import memory

    return memory.report(memory.measure(options.model, options.ways, options.batch_size, options.limit, note),
                         options.json)  # fmt: skip


def deep(options: argparse.Namespace, folder: Path) -> str:
    """the same for nets of 110 layers and more, unrolled and as a loop"""
    return memory(options, folder)


def regression(options: argparse.Namespace, folder: Path) -> str:
    """make bench: whether a ratio is less than it was"""
    from benchmarks import regression

    where = machine()
    if not options.record:
        regression.reference_of(where)
    found = regression.measure(folder, options.seconds, options.rounds, note)
    if options.record:
        regression.record(found, where, measured_on())
    return regression.check(found, where)


#: Each: what makes its table, and the page that has it, if any.
BENCHMARKS: dict[str, tuple[Callable[[argparse.Namespace, Path], str], str]] = {
    "differences": (differences, "docs/training.md"),
    "checkpoint_overhead": (checkpoint_overhead, "docs/training.md"),
    "finetuning": (finetuning, "docs/finetuning.md"),
    "input_pipeline": (input_pipeline, "docs/input_pipeline.md"),
    "train_step": (train_step, "docs/performance.md"),
    "eval": (train_step, "docs/performance.md"),
    "kernels": (kernels, "docs/performance.md"),
    "startup": (startup, "docs/performance.md"),
    "end_to_end": (end_to_end, "docs/performance.md"),
    "memory": (memory, "docs/performance.md"),
    "deep": (deep, "docs/performance.md"),
    "scaling": (scaling, "docs/scaling.md"),
    "regression": (regression, ""),
}


def main(arguments: Sequence[str]) -> int:
    """Runs a benchmark and returns the exit status."""
    # Without compiled programs of earlier commands: several measure how long it takes to compile.
    return run(lambda: _measure(arguments), compilation_cache=False)


class _Parser(argparse.ArgumentParser):
    """Says a mistake in one line, as the other commands do."""

    def error(self, message: str) -> NoReturn:
        raise UserError(f"{message}; `{self.prog} --help` says more")


def _names(text: str) -> list[str]:
    return [name for name in text.split(",") if name]


def _numbers(text: str) -> list[int]:
    return [int(number) for number in _names(text)]


def _options(name: str, command: argparse.ArgumentParser) -> None:
    """Adds the options of a benchmark."""
    add, some = command.add_argument, number(int, "a whole number of 1 or more", 1)
    as_json = {"action": "store_true", "help": "print one JSON object, and nothing else"}
    if name == "differences":
        add("--steps", type=some, default=100, help="steps to take (%(default)s)")
    elif name == "input_pipeline":
        add("--data_dir", default="../shared/data/imagenet_sample", help="images (%(default)s)")
        add("--seconds", type=number(float, "a number of 0 or more", 0), default=5, help="for each row (%(default)s)")
        add("--peer_python", action="append", default=[], metavar="PATH",
            help="an interpreter that has TensorFlow or PyTorch; may be repeated")  # fmt: skip
        add("--json", **as_json)  # type: ignore[arg-type]
    elif name == "finetuning":
        add("--weights", required=True, help="of a cifar_resnet20 trained on CIFAR-10")
        add("--steps", type=some, default=60, help="of each run (%(default)s)")
        add("--seeds", type=some, default=2, help="runs of each way (%(default)s)")
    elif name == "checkpoint_overhead":
        add("--every", type=some, default=100, help="steps between checkpoints (%(default)s)")
        add("--repeats", type=some, default=5, help="rounds (%(default)s)")
    elif name in ("train_step", "eval"):
        add(
            "--model",
            type=_names,
            default=["cifar_resnet20"],
            metavar="NET[@SIZE][,...]",
            help="nets, and the side of their images in pixels (cifar_resnet20)",
        )
        add(
            "--peer",
            type=_names,
            default=["flax_example"],
            metavar="PEER[,PEER]",
            help="torch, flax_example, xla, whole_batch",
        )
        add("--batch_size", type=int, default=0, help="0: 128 for CIFAR's nets, 32 for ImageNet's")
        add("--image_size", type=int, default=0, help="in pixels; 0: that which a net was published for")
        add(
            "--bn_group_size",
            type=int,
            default=0,
            help="examples that share batch statistics in our nets, with --peer=whole_batch; 0: the whole batch",
        )
        add("--dtype", choices=("float32", "bfloat16"), default="float32", help="of the computation (%(default)s)")
        add("--variants", type=_names, default=[], help="of torch: contiguous, channels_last, either +compile; of "
            "several the fastest counts. By default both on CPU, channels_last+compile on a GPU")  # fmt: skip
        add("--seconds", type=number(float, "a number of 0 or more", 0), default=3, help="of one turn (%(default)s)")
        add("--rounds", type=some, default=10, help="turns of each (%(default)s)")
        add("--json", **as_json)  # type: ignore[arg-type]
    elif name == "kernels":
        add("--rounds", type=some, default=15, help="turns of each (%(default)s)")
    elif name == "startup":
        add("--net", type=_names, default=["resnet20", "resnet56"], help="on digits (resnet20,resnet56)")
        add("--repeats", type=some, default=5, help="of each (%(default)s)")
    elif name == "end_to_end":
        add("--net", default="resnet20", help="on digits (%(default)s)")
        add("--steps", type=some, default=400, help="of one run (%(default)s)")
        add("--rounds", type=some, default=7, help="runs (%(default)s)")
    elif name == "scaling":
        add("--model", default="cifar_resnet20", help="the net that is run (%(default)s)")
        add("--batch_size", type=int, default=32, help="of one device (weak), or of the whole by 8 (strong)")
        add("--devices", type=_numbers, default=[1, 2, 4, 8], help="numbers of virtual devices (1,2,4,8)")
        add("--seconds", type=number(float, "a number of 0 or more", 0), default=3, help="of one turn (%(default)s)")
        add("--rounds", type=some, default=5, help="turns (%(default)s)")
        add("--json", **as_json)  # type: ignore[arg-type]
    elif name in ("memory", "deep"):
        from benchmarks.memory import DEEP, NETS, WAYS

        deep = name == "deep"
        ways = list(WAYS) if deep else ["plain", "remat"]
        add("--model", type=_names, default=list(DEEP if deep else NETS), metavar="NET[,NET...]", help="nets")
        add("--ways", type=_names, default=ways, help=f"of {', '.join(WAYS)}")
        add("--batch_size", type=int, default=0, help="0: the papers' 128 and 256")
        add("--limit", type=float, default=1800, help="seconds until a compilation is given up (%(default)s)")
        add("--json", **as_json)  # type: ignore[arg-type]
    else:
        add("--seconds", type=number(float, "a number of 0 or more", 0), default=2, help="of one turn (%(default)s)")
        add("--rounds", type=some, default=8, help="turns of each (%(default)s)")
        add("--record", action="store_true", help="write benchmarks/reference.json anew")


def _measure(arguments: Sequence[str]) -> None:
    parser = _Parser(prog="python -m benchmarks", description=__doc__)
    commands = parser.add_subparsers(dest="name", required=True)
    for name, (function, page) in BENCHMARKS.items():
        command = commands.add_parser(name, help=function.__doc__)
        if page:
            command.add_argument("--write", action="store_true", help=f"put the table into {page}")
        _options(name, command)
    options = parser.parse_args(arguments)

    function, page = BENCHMARKS[options.name]
    write, as_json = getattr(options, "write", False), getattr(options, "json", False)
    if write and as_json:
        raise UserError("--write puts a table into a page: leave out --json")
    with tempfile.TemporaryDirectory() as folder:
        text = function(options, Path(folder))
    if not as_json:
        text = f"{text}\n\n{measured_on()}"
    print(text)
    if write:
        write_between(ROOT / page, options.name, text)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
