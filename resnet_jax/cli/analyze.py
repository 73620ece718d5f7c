"""`analyze`: looks into trained runs, writes what it finds into their folders and draws it."""

import importlib
import sys
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from absl import flags

from resnet_jax.cli.flags import parse, verb_flags
from resnet_jax.errors import UserError, unknown_name

USAGE = """analyze ANALYSIS --workdir=DIR[,DIR...] [--out=DIR] [...]

  responses   standard deviation of each layer's response (He et al. 2015, figure 7)
  gradients   gradient norms by layer while the run's net is trained again (2015, section 4.2)
  surface     the loss around the solution (Li et al. 2018); goes on where it was killed
  lesion      test error with units removed or exchanged (Veit et al. 2016)
  cost        parameters and multiply-adds of the named nets against depth; takes --out alone"""

ANALYSES = ("responses", "gradients", "surface", "lesion", "cost")


def _define_responses(values: flags.FlagValues) -> None:
    flags.DEFINE_string("split", "test", "responses: images to take, test or train", flag_values=values)


def _define_gradients(values: flags.FlagValues) -> None:
    flags.DEFINE_list(
        "steps", None, "gradients: steps at which to measure; by default five, from first to last", flag_values=values
    )


def _define_surface(values: flags.FlagValues) -> None:
    flags.DEFINE_integer("points", 21, "surface: points on each axis, odd (the paper: 51)", flag_values=values)
    flags.DEFINE_float("span", 1.0, "surface: the axes go from -span to span", flag_values=values)
    flags.DEFINE_integer("dimensions", 2, "surface: 1 for a line, 2 for a plane", flag_values=values)
    flags.DEFINE_integer("images", 0, "surface: training images to take, 0 for all", flag_values=values)
    flags.DEFINE_integer("seed", 0, "surface, lesion: seed of what is random", flag_values=values)


def _define_lesion(values: flags.FlagValues) -> None:
    flags.DEFINE_integer("repeats", 10, "lesion: draws for each number of units", flag_values=values)
    if "seed" not in values:
        flags.DEFINE_integer("seed", 0, "lesion: seed of what is random", flag_values=values)


#: The flags that belong to one analysis alone: given to another they are a mistake.
_OWN: dict[str, tuple[Callable[[flags.FlagValues], None], tuple[str, ...]]] = {
    "responses": (_define_responses, ("split",)),
    "gradients": (_define_gradients, ("steps",)),
    "surface": (_define_surface, ("points", "span", "dimensions", "images", "seed")),
    "lesion": (_define_lesion, ("repeats", "seed")),
    "cost": (lambda values: None, ()),
}


def main(arguments: Sequence[str]) -> None:
    """Analyses each run, draws them together and prints where everything is."""
    values = verb_flags()
    flags.DEFINE_list("workdir", [], "folders of runs, in the figure's order", flag_values=values)
    flags.DEFINE_string(
        "out", None, "folder of the pictures; by default that of the run, or of several the one that holds the first",
        flag_values=values,
    )  # fmt: skip
    flags.DEFINE_string("data_dir", None, "TFDS data directory, if not the run's own", flag_values=values)
    flags.DEFINE_bool("draw", False, "only draw what was found before", flag_values=values)
    for define, _ in _OWN.values():
        define(values)
    names = parse(values, USAGE, arguments)
    if len(names) != 1:
        raise UserError(f"analyze needs one ANALYSIS of {', '.join(ANALYSES)}; python -m resnet_jax analyze --help")
    name = names[0]
    if name not in ANALYSES:
        raise unknown_name("analysis", name, ANALYSES)
    own = _OWN[name][1]
    for flag in {flag for _, owned in _OWN.values() for flag in owned} - {*own}:
        if values[flag].present:
            raise UserError(f"--{flag} is not for analyze {name}")

    from resnet_jax.report.analysis.figures import plot_analysis, plot_cost

    if name == "cost":
        if values.workdir or not values.out:
            raise UserError("analyze cost needs --out and no --workdir: it is about the nets, not about runs")
        pictures = plot_cost(values.out)
    else:
        if not values.workdir:
            raise UserError(f"analyze {name} needs --workdir=DIR[,DIR...]")
        if not values.draw:
            analyse(name, values.workdir, values.data_dir, _options(values, own))
        several = len(values.workdir) > 1
        first = Path(values.workdir[0]).expanduser()
        pictures = plot_analysis(name, values.workdir, values.out or (first.parent if several else first))
    for path in pictures:
        print(path)


def _options(values: flags.FlagValues, own: Sequence[str]) -> dict[str, Any]:
    options = {flag: values[flag].value for flag in own}
    if steps := options.get("steps"):
        try:
            options["steps"] = [int(step) for step in steps]
        except ValueError:
            raise UserError(f"--steps={','.join(steps)} must be whole numbers") from None
    return options


def analyse(name: str, workdirs: Sequence[str | Path], data_dir: str | None, options: Mapping[str, Any]) -> None:
    """Runs one analysis on each run, all of which must be there before the first begins; prints the files written.

    Args:
      name: of the analysis: one of `ANALYSES` that is about runs.
      workdirs: the runs' folders.
      data_dir: TFDS data directory, if it is not where the runs found it.
      options: further arguments of the analysis's `run_...`.

    Raises:
      UserError: see there.
    """
    from resnet_jax.cli.progress_bar import progress_bar
    from resnet_jax.evaluation.open_run import run_config

    for workdir in workdirs:
        run_config(workdir)
    run = getattr(importlib.import_module(f"resnet_jax.analysis.{name}"), f"run_{name}")
    for workdir in workdirs:
        with warnings.catch_warnings(record=True) as caught, progress_bar(f"{name} {Path(workdir).name}") as report:
            print(run(workdir, data_dir=data_dir, report=report, **options))
        for warning in caught:
            print(f"warning: {warning.message}", file=sys.stderr)
