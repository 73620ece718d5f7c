"""`python -m benchmarks NAME`: measures, prints a table and, with --write, puts it into docs/."""

import argparse
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NoReturn

from benchmarks.pages import measured_on, write_between
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
    """The table of `benchmarks.input_pipeline`."""
    from benchmarks import input_pipeline

    found = input_pipeline.measure(Path(options.data_dir), folder, options.seconds, options.peer_python, note)
    return input_pipeline.report(found, options.json)


def finetuning(options: argparse.Namespace, folder: Path) -> str:
    """fine-tuning from CIFAR-10 to few digits, beside training from scratch"""
    from benchmarks import finetuning

    found = finetuning.measure(folder, options.weights, options.steps, options.seeds, note)
    return finetuning.report(found, options.steps)


#: Each: what makes its table, and the page that has it.
BENCHMARKS: dict[str, tuple[Callable[[argparse.Namespace, Path], str], str]] = {
    "differences": (differences, "docs/training.md"),
    "checkpoint_overhead": (checkpoint_overhead, "docs/training.md"),
    "finetuning": (finetuning, "docs/finetuning.md"),
    "input_pipeline": (input_pipeline, "docs/input_pipeline.md"),
}


def main(arguments: Sequence[str]) -> int:
    """Runs a benchmark and returns the exit status."""
    return run(lambda: _measure(arguments))


class _Parser(argparse.ArgumentParser):
    """Says a mistake in one line, as the other commands do."""

    def error(self, message: str) -> NoReturn:
        raise UserError(f"{message}; `{self.prog} --help` says more")


def _measure(arguments: Sequence[str]) -> None:
    parser = _Parser(prog="python -m benchmarks", description=__doc__)
    commands = parser.add_subparsers(dest="name", required=True)
    for name, (function, page) in BENCHMARKS.items():
        command = commands.add_parser(name, help=function.__doc__)
        command.add_argument("--write", action="store_true", help=f"put the table into {page}")
        if name == "differences":
            command.add_argument("--steps", type=int, default=100, help="steps to take (%(default)s)")
        elif name == "input_pipeline":
            command.add_argument("--data_dir", default="../shared/data/imagenet_sample", help="images (%(default)s)")
            command.add_argument("--seconds", type=float, default=5, help="for each row (%(default)s)")
            command.add_argument("--peer_python", action="append", default=[], metavar="PATH",
                                 help="an interpreter that has TensorFlow or PyTorch; may be repeated")  # fmt: skip
            command.add_argument("--json", action="store_true", help="print one JSON object, and nothing else")
        elif name == "finetuning":
            command.add_argument("--weights", required=True, help="of a cifar_resnet20 trained on CIFAR-10")
            command.add_argument("--steps", type=int, default=60, help="of each run (%(default)s)")
            command.add_argument("--seeds", type=int, default=2, help="runs of each way (%(default)s)")
        else:
            command.add_argument("--every", type=int, default=100, help="steps between checkpoints (%(default)s)")
            command.add_argument("--repeats", type=int, default=5, help="rounds (%(default)s)")
    options = parser.parse_args(arguments)

    function, page = BENCHMARKS[options.name]
    with tempfile.TemporaryDirectory() as folder:
        text = function(options, Path(folder))
    if as_json := getattr(options, "json", False):
        if options.write:
            raise UserError("--write puts a table into a page: leave out --json")
    else:
        text = f"{text}\n\n{measured_on()}"
    print(text)
    if options.write and not as_json:
        write_between(ROOT / page, options.name, text)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
