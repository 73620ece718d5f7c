"""`python -m experiments ablation`, `readme` and `publish`: the digits ablation, and the README's tables."""

from collections.abc import Sequence
from pathlib import Path

from experiments.commands.options import folder
from resnet_jax.cli.arguments import Parser


def ablation(arguments: Sequence[str]) -> None:
    """Trains plain-20/56 and ResNet-20/56 on digits and draws their curves."""
    parser = Parser(prog="python -m experiments ablation", description=ablation.__doc__)
    parser.add_argument("--out", type=folder, default=Path("runs/ablation"), help="folder of the runs (%(default)s)")
    parser.add_argument("--steps", type=int, help="a shorter or longer schedule than the config's")
    options = parser.parse_args(arguments)

    from rich.console import Console

    from experiments import ablation as digits
    from resnet_jax.report.grid import to_rich
    from resnet_jax.report.table import runs_grid
    from resnet_jax.training.progress import make_progress

    with make_progress() as progress:
        digits.run(options.out, progress, options.steps)
    length = "" if options.steps is None else f" --steps={options.steps}"
    found = digits.runs(options.out)
    written = digits.draw(found, options.out, f"python -m experiments ablation --out={options.out}{length}")
    console = Console()
    console.print(to_rich(runs_grid(found), digits.TITLE, console.width))
    for name, path in written.items():
        print(f"{name:12s} {path}")


def readme(arguments: Sequence[str]) -> None:
    """Rewrites the tables and pictures of README.md and docs/ from the records under results/."""
    Parser(prog="python -m experiments readme", description=readme.__doc__).parse_args(arguments)
    from experiments.readme import update

    update()


def publish(arguments: Sequence[str]) -> None:
    """Copies finished records to results/ and rewrites the tables of README.md and docs/."""
    parser = Parser(prog="python -m experiments publish", description=publish.__doc__)
    parser.add_argument("--source", type=folder, default=Path("runs/ablation"),
                        help="folder of the ablation's runs, or of the papers' (%(default)s)")  # fmt: skip
    options = parser.parse_args(arguments)
    from experiments.publish import publish as copy

    for written in copy(options.source):
        print(written)
