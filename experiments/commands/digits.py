"""`python -m experiments ablation`, `readme` and `publish`: the digits ablation, and the README's tables."""

from collections.abc import Sequence
from pathlib import Path

from experiments.commands.options import Parser
from resnet_jax.cli.run_command import run_command


def ablation(arguments: Sequence[str]) -> int:
    """Trains plain-20/56 and ResNet-20/56 on digits and draws their curves; returns the exit status."""

    def command() -> None:
        parser = Parser(prog="python -m experiments ablation", description=ablation.__doc__)
        parser.add_argument("--out", type=Path, default=Path("runs/ablation"), help="folder of the runs (%(default)s)")
        parser.add_argument("--steps", type=int, help="a shorter or longer schedule than the config's")
        options = parser.parse_args(arguments)
        run_ablation(options.out, options.steps)

    return run_command(command)


def readme(arguments: Sequence[str]) -> int:
    """Rewrites the README's tables and pictures from the records under results/; returns the exit status."""

    def command() -> None:
        Parser(prog="python -m experiments readme", description=readme.__doc__).parse_args(arguments)
        from experiments.readme import update

        update()

    return run_command(command)


def publish(arguments: Sequence[str]) -> int:
    """Copies finished records to results/ and rewrites the README; returns the exit status."""

    def command() -> None:
        parser = Parser(prog="python -m experiments publish", description=publish.__doc__)
        parser.add_argument("--source", type=Path, default=Path("runs/ablation"),
                            help="folder of the ablation's runs, or of the papers' (%(default)s)")  # fmt: skip
        options = parser.parse_args(arguments)
        from experiments.publish import publish as copy

        for folder in copy(options.source):
            print(folder)

    return run_command(command)


def run_ablation(out: Path, steps: int | None) -> None:
    """Trains what is missing, prints the table and says where the page is."""
    from rich.console import Console

    from experiments import ablation as digits
    from resnet_jax.report.grid import to_rich
    from resnet_jax.report.table import runs_grid
    from resnet_jax.training.progress import make_progress

    with make_progress() as progress:
        digits.run(out, progress, steps)
    length = "" if steps is None else f" --steps={steps}"
    found = digits.runs(out)
    written = digits.draw(found, out, f"python -m experiments ablation --out={out}{length}")
    console = Console()
    console.print(to_rich(runs_grid(found), digits.TITLE, console.width))
    for name, path in written.items():
        print(f"{name:12s} {path}")
