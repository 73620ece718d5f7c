"""`python -m experiments`: runs and draws the experiments, and keeps the README in step with the records."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from resnet_jax.cli.door import run


def main(arguments: Sequence[str]) -> int:
    """Runs a command and returns the exit status: 0, or 2 for a mistake of the user's, said in one line."""
    if len(arguments) > 1 and arguments[1] == "run":
        from experiments.commands import run as run_command

        return run_command.main(arguments[0], arguments[2:])
    parser = argparse.ArgumentParser(prog="python -m experiments", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    ablation = commands.add_parser(
        "ablation", help="train plain-20/56 and ResNet-20/56 on digits and draw their curves"
    )
    ablation.add_argument("--out", type=Path, default=Path("runs/ablation"), help="folder of the runs (%(default)s)")
    ablation.add_argument("--steps", type=int, help="a shorter or longer schedule than the config's")
    commands.add_parser("readme", help="rewrite the README's tables and pictures from the records under results/")
    publish = commands.add_parser("publish", help="copy finished records to results/ and rewrite the README")
    publish.add_argument("--source", type=Path, default=Path("runs/ablation"), help="folder of the runs (%(default)s)")
    options = parser.parse_args(arguments)

    def command() -> None:
        if options.command == "ablation":
            run_ablation(options.out, options.steps)
        else:
            from experiments import readme

            readme.update() if options.command == "readme" else readme.publish(options.source)

    return run(command)


def run_ablation(out: Path, steps: int | None) -> None:
    """Trains what is missing, prints the table and says where the page is."""
    from rich.console import Console

    from experiments import ablation
    from resnet_jax.report.table import to_rich
    from resnet_jax.training.progress import make_progress

    with make_progress() as progress:
        ablation.run(out, progress, steps)
    length = "" if steps is None else f" --steps={steps}"
    written = ablation.draw(out, f"python -m experiments ablation --out={out}{length}")
    Console().print(to_rich(ablation.runs(out), ablation.TITLE))
    for name, path in written.items():
        print(f"{name:12s} {path}")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
