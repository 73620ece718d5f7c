"""The verb `train`: trains a net as a config says."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from resnet_jax.cli.flags import PROCESSES, join_processes, parse_with_config, verb_flags

if TYPE_CHECKING:
    from resnet_jax.training.result import Result

USAGE = "train --config=configs/cifar10.py:resnet20 --workdir=DIR [--config.FIELD=VALUE ...]"


def main(arguments: Sequence[str]) -> None:
    """Trains, shows progress on stderr and prints the result."""
    values = verb_flags(
        ("string", "workdir", None, "the run's folder; the same command goes on with it"),
        ("list", "force", [], "fields that may differ from those of the run that goes on"), *PROCESSES,
    )  # fmt: skip
    config = parse_with_config(values, USAGE, arguments, "workdir")
    join_processes(values)

    from resnet_jax.training.distributed import is_chief
    from resnet_jax.training.loop import fit
    from resnet_jax.training.progress import ProgressDisplay, make_progress

    with make_progress() if is_chief() else ProgressDisplay() as progress:
        result = fit(config, values.workdir, progress, force=values.force)
    if is_chief():
        _print(result, values.workdir)


def _print(result: "Result", workdir: str) -> None:
    from resnet_jax.tasks.choose import task_type
    from resnet_jax.tasks.task import in_words

    if result.kept_step is not None:
        print(f"training ended after step {result.stopped_step}; the weights of step {result.kept_step} are kept")
    print(
        f"{result.model} on {result.dataset}, {result.steps} steps, seed {result.seed}: "
        f"{in_words(task_type(result.task), result.metrics, result.evaluated_on)}, "
        f"{result.seconds:.0f} s, {result.images_per_second:,.0f} images/s; record in {workdir}"
    )
