"""`analyze`: looks into trained runs, writes what it finds into their folders and draws it."""

import importlib
import sys
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from resnet_jax.cli.flags import Definition, numbers, parse, verb_flags
from resnet_jax.errors import UserError, unknown_name

#: What each analysis finds.
ANALYSES = {
    "responses": "standard deviation of each layer's response (He et al. 2015, figure 7)",
    "gradients": "gradient norms by layer while the run's net is trained again (2015, section 4.2)",
    "surface": "the loss around the solution (Li et al. 2018); continues where it was killed",
    "lesion": "test error with units removed or exchanged (Veit et al. 2016)",
    "cost": "parameters and multiply-adds of the named nets against depth; takes --out alone",
}

USAGE = "analyze ANALYSIS --workdir=DIR[,DIR...] [--out=DIR] [...]\n\n" + "\n".join(
    f"  {name:12s}{text}" for name, text in ANALYSES.items()
)

_OUT: Definition = ("string", "out", None, "folder of the figures; by default the run's, or of several its parent")
_COMMON: tuple[Definition, ...] = (
    ("list", "workdir", None, "folders of runs, in the figure's order"), _OUT,
    ("string", "data_dir", None, "where the data are, if not where the run found them"),
    ("bool", "draw", False, "only draw what was found before"),
)  # fmt: skip
_SEED: Definition = ("integer", "seed", 0, "seed of what is random")
_IMAGES: Definition = ("integer", "images", 0, "images that the loss or error is over, drawn at random; 0 for all")

#: The flags of each analysis; it refuses the others.
FLAGS: dict[str, tuple[Definition, ...]] = {
    "responses": (*_COMMON, ("string", "split", "test", "images to take, test or train")),
    "gradients": (*_COMMON, ("list", "steps", None, "steps at which to measure; by default five, from first to last")),
    "surface": (
        *_COMMON,
        ("integer", "points", 21, "points on each axis, odd; the paper has 51"),
        ("float", "span", 1.0, "the axes go from -span to span"),
        ("integer", "dimensions", 2, "1 for a line, 2 for a plane"),
        _IMAGES,
        _SEED,
    ),
    "lesion": (
        *_COMMON,
        ("integer", "repeats", 10, "draws for each number of units"),
        _IMAGES,
        _SEED,
    ),
    "cost": (_OUT,),
}


def main(arguments: Sequence[str]) -> None:
    """Analyses each run, draws them together and prints the files written."""
    if {"--help", "-h"} & set(arguments):
        _help(next((argument for argument in arguments if argument in ANALYSES), None))
    every = dict.fromkeys(definition for own in FLAGS.values() for definition in own)
    values = verb_flags(*every)
    names = parse(values, USAGE, arguments)
    if len(names) != 1:
        raise UserError(f"analyze needs one ANALYSIS of {', '.join(ANALYSES)}; python -m resnet_jax analyze --help")
    name = names[0]
    if name not in ANALYSES:
        raise unknown_name("analysis", name, ANALYSES)
    for definition in every:
        if definition not in FLAGS[name] and values[definition[1]].present:
            raise UserError(f"--{definition[1]} is not for analyze {name}")
    if not (values.out if name == "cost" else values.workdir):
        raise UserError(f"analyze {name} needs {_needed(name)}")

    from resnet_jax.report.analysis.figures import plot_analysis

    workdirs = values.workdir or []
    if workdirs and not values.draw:
        options = {one[1]: values[one[1]].value for one in FLAGS[name] if one not in _COMMON}
        if values.steps:
            options["steps"] = numbers(values, "steps", int, "whole numbers")
        analyse(name, workdirs, values.data_dir, options)
    out = values.out
    if not out:
        first = Path(workdirs[0]).expanduser()
        out = first.parent if workdirs[1:] else first
    for path in plot_analysis(name, workdirs, out):
        print(path)


def _help(name: str | None) -> None:
    """Prints the help of one analysis, or what all have in common, and exits."""
    if name is None:
        parse(verb_flags(*_COMMON), f"{USAGE}\n\nanalyze ANALYSIS --help lists the analysis's own flags.", ["--help"])
    else:
        usage = f"analyze {name} {_needed(name)} [...]\n\n  {ANALYSES[name]}"
        parse(verb_flags(*FLAGS[name]), usage, ["--help"])


def _needed(name: str) -> str:
    return "--out=DIR" if name == "cost" else "--workdir=DIR[,DIR...]"


def analyse(name: str, workdirs: Sequence[str | Path], data_dir: str | None, options: Mapping[str, Any]) -> None:
    """Runs one analysis on each run and prints the files written; all runs must exist before the first begins.

    Args:
      name: one of `ANALYSES` that is about runs.
      workdirs: the runs' folders.
      data_dir: where the data are, if not where the runs found them.
      options: further arguments of the analysis's `run_...`, whose errors are raised.
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
