"""`train`: trains a net as a config says."""

import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from absl import flags
from ml_collections import ConfigDict

from resnet_jax.cli.flags import define_config, define_processes, join_processes, parse, read_config, verb_flags
from resnet_jax.errors import UserError

if TYPE_CHECKING:
    from resnet_jax.training.record import Result

USAGE = "train --config=configs/cifar10.py:resnet20 --workdir=DIR [--seeds=0,1,2] [--config.FIELD=VALUE ...]"


def main(arguments: Sequence[str]) -> None:
    """Trains, shows progress on stderr and prints the result."""
    values = verb_flags()
    define_config(values, arguments)
    flags.DEFINE_string("workdir", None, "the run's folder; the same command goes on with it", flag_values=values)
    flags.DEFINE_list(
        "seeds", [], "several runs in one program, with these seeds, in DIR/seed0, ...: sooner done than one by one",
        flag_values=values,
    )  # fmt: skip
    flags.DEFINE_enum(
        "packing", None, ("vmap", "unrolled"), "how several seeds share the program; `python -m benchmarks seeds` "
        "times both; by default vmap on GPU and TPU, unrolled on CPU", flag_values=values,
    )  # fmt: skip
    flags.DEFINE_list("force", [], "fields that may differ from those of the run that goes on", flag_values=values)
    define_processes(values)
    extra = parse(values, USAGE, arguments)
    if extra:
        raise UserError(f"train takes no argument {extra[0]!r}; usage: {USAGE}")
    if values.config is None or not values.workdir:
        raise UserError(f"train needs --config and --workdir; usage: {USAGE}")

    config = read_config(values)
    configs, workdirs = [config], [Path(values.workdir)]
    if values["seeds"].present:
        configs = with_seeds(config, values.seeds)
        workdirs = [Path(values.workdir) / f"seed{one.seed}" for one in configs]
    elif values.packing:
        raise UserError("--packing is for several runs: it goes with --seeds")

    from resnet_jax.training.distributed import is_chief
    from resnet_jax.training.loop import fit_seeds
    from resnet_jax.training.progress import NoProgress, make_progress

    join_processes(values)
    with make_progress() if is_chief() else NoProgress() as progress:
        results = fit_seeds(configs, workdirs, progress, force=values.force, packing=values.packing)
    if not is_chief():
        return
    for result, workdir in zip(results, workdirs, strict=True):
        _print(result, workdir)
    if len(results) > 1:
        errors = [result.test_error for result in results]
        print(
            f"{len(results)} seeds: {results[0].evaluated_on.replace('_', '-')} error {statistics.mean(errors):.2f} % "
            f"on average, standard deviation {statistics.stdev(errors):.2f}"
        )


def with_seeds(config: ConfigDict, seeds: Sequence[str]) -> list[ConfigDict]:
    """The config with each of the seeds, as the command line gives them.

    Raises:
      UserError: for one that is no whole number, or is there twice; for none, and for a seed in the config as well.
    """
    if not seeds:
        raise UserError("--seeds= is empty; it takes numbers, as --seeds=0,1,2")
    if config.seed:
        raise UserError(f"config.seed={config.seed} and --seeds={','.join(seeds)}: give one of them")
    if bad := [seed for seed in seeds if not seed.isdecimal()]:
        raise UserError(f"--seeds={','.join(seeds)}: {bad[0]!r} is no whole number of 0 or more")
    numbers = [int(seed) for seed in seeds]
    if len(set(numbers)) < len(numbers):
        raise UserError(f"--seeds={','.join(seeds)} names a seed twice")
    configs = [config.copy_and_resolve_references() for _ in numbers]
    for one, number in zip(configs, numbers, strict=True):
        one.seed = number
    return configs


def _print(result: "Result", workdir: Path) -> None:
    if result.kept_step is not None:
        print(f"training ended after step {result.stopped_step}; the weights of step {result.kept_step} are kept")
    print(
        f"{result.model} on {result.dataset}, {result.steps} steps, seed {result.seed}: training error "
        f"{result.train_error:.2f} %, {result.evaluated_on.replace('_', '-')} error {result.test_error:.2f} % "
        f"(lowest of all evaluations {result.best_test_error:.2f} %), "
        f"{result.seconds:.0f} s, {result.images_per_second:,.0f} images/s; record in {workdir}"
    )
