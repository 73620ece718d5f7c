"""`python -m experiments NAME run`: carries out the runs that a table or figure still lacks."""

import argparse
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from experiments import registry
from experiments.commands.options import FROM_WEIGHTS, NEW_RUNS, RUNS, changes, folder
from resnet_jax.cli.arguments import Parser, number
from resnet_jax.errors import Stopped, UserError

if TYPE_CHECKING:
    from experiments.experiment import Experiment
    from experiments.plan import Plan, Status

#: Fields that `--set` does not take, and why.
NOT_SET = {**FROM_WEIGHTS, "seed": "that is what --seeds is for", "steps_scale": "that is what --steps_scale is for"}


def main(name: str, arguments: Sequence[str]) -> list[str]:
    """Runs what is missing, prints the plan, and returns the names of the runs that failed.

    Args:
      name: of a table or figure, of a paper for all of it, or several of them with commas between.
      arguments: those after `run`.

    Raises:
      UserError: for what cannot be run.
      Stopped: after a signal.
    """
    names = registry.expand(name)
    options = parse(name, arguments)

    from experiments.finished import analyse_finished, evaluate_finished
    from experiments.plan import make_plan
    from experiments.run_index import index_runs

    experiments = [registry.load(one) for one in names]
    if options.rows and len(experiments) > 1:
        raise UserError("--rows is for one table or figure at a time")
    if len(experiments) > 1:
        experiments = without_weights(experiments)
    index = index_runs(options.runs) if options.runs.is_dir() else None
    plan = make_plan(experiments, options.out, rows=options.rows, seeds=options.seeds, steps_scale=options.steps_scale,
                     changes=options.changes, index=index)  # fmt: skip
    if options.launcher == "local":
        check_data(plan)
    if options.dry_run:
        _dry_run(plan, options)
        return []
    failed = _launch(plan, options)
    show_plan(plan)
    failed += evaluate_finished(plan, plan.statuses())
    failed += analyse_finished(plan, plan.statuses())
    print_failures(failed)
    return [name for name, _ in failed]


def without_weights(experiments: "Sequence[Experiment]") -> "list[Experiment]":
    """Returns the tables whose runs begin with random weights, and names the others, which are run one by one."""
    from experiments.experiment import begins_with_weights

    others = [one.name for one in experiments if begins_with_weights(one)]
    if others:
        print(f"left out, since their runs begin with weights: {', '.join(others)}; run each by itself, with --set "
              "init_from=WEIGHTS", file=sys.stderr)  # fmt: skip
    return [one for one in experiments if one.name not in others]


def parse(name: str, arguments: Sequence[str]) -> argparse.Namespace:
    """Returns the options.

    Raises:
      UserError: for an unknown option or a value that does not fit.
    """
    parser = Parser(prog=f"python -m experiments {name} run", description=__doc__)
    add = parser.add_argument
    add("--seeds", type=number(int, "a whole number of 1 or more", 1),
        help="runs of each row; by default as many as the paper made")  # fmt: skip
    add("--rows", default="",
        help="rows by their names or labels, with commas between; all by default")  # fmt: skip
    add("--dry_run", action="store_true", help="only say what there is, what is missing, and how long that takes: from "
        "records of this hardware or, for nets that have none, from their multiply-adds")  # fmt: skip
    add("--measure", action="store_true", help="with --dry_run, time some steps of each net that has no record")
    add("--launcher", choices=("local", "ray"), default="local",
        help="this machine, or the Ray cluster that RAY_ADDRESS names")  # fmt: skip
    add_launch_options(parser, None, f"folder of the runs, where finished ones are found however deep; by default new "
                       f"ones go to {NEW_RUNS}, and finished ones are found in all of {RUNS}")  # fmt: skip
    options = parser.parse_args(arguments)
    options.changes = absolute(changes(options.set, NOT_SET))
    options.runs = options.out or RUNS
    options.out = options.out or NEW_RUNS
    if options.measure and not (options.dry_run and options.launcher == "local"):
        raise UserError("--measure is for --dry_run on this machine")
    if options.launcher == "ray" and options.per_device:
        raise UserError("--per_device is for --launcher=local: Ray gives each run a device anyway")
    return options


def add_launch_options(
    parser: argparse.ArgumentParser, out: Path | None = NEW_RUNS, text: str = "folder of the runs (%(default)s)"
) -> None:
    """Adds the options of `run` and `campaign`: which runs, and how they are spread over the devices.

    `out` and `text` are default and help of --out.
    """
    add = parser.add_argument
    add("--out", type=folder, default=out, help=text)
    add("--steps_scale", type=number(float, "a number above 0", 1e-9), default=1.0,
        help="shortens every schedule by this factor, and every record says so")  # fmt: skip
    add("--set", action="append", nargs="+", default=[], metavar="FIELD=VALUE",
        help="changes config fields of all rows, as data.data_dir=DIR")  # fmt: skip
    add("--per_device", action="store_true", help="give each run a device instead of all of them")
    add("--at_once", type=number(int, "a whole number of 1 or more", 1), default=1,
        help="processes that share a device at a time (%(default)s)")  # fmt: skip


def absolute(fields: dict[str, Any]) -> dict[str, Any]:
    """Returns fields with absolute paths: runs are processes that begin in the checkout, wherever the user is."""
    places = {name: fields[name] for name in ("data.data_dir", "init_from") if isinstance(fields.get(name), str)}
    return fields | {name: str(Path(place).expanduser().absolute()) for name, place in places.items()}


def show_plan(plan: "Plan") -> None:
    """Prints how far all runs are."""
    from rich.console import Console

    from experiments.plan_table import plan_table

    console = Console()
    console.print(plan_table(plan, plan.statuses(), None, width=console.width))


def check_data(plan: "Plan") -> None:
    """Raises UserError for a data folder that does not exist, before every run fails because of it."""
    for place in {trial.config.data.data_dir for trial in plan.trials} - {None}:
        if not Path(place).expanduser().exists():  # CIFAR's may be an archive
            raise UserError(f"data.data_dir={place} is not a folder, and no archive")


def _dry_run(plan: "Plan", options: argparse.Namespace) -> None:
    from rich.console import Console

    from experiments.estimate import PUBLISHED, Rates, estimated_rates, recorded_rates
    from experiments.experiment import ANALYSES, asked_metric
    from experiments.launchers.devices import probe, slots
    from experiments.launchers.timing import measure
    from experiments.plan import State
    from experiments.plan_table import plan_table
    from experiments.scores import IN_RESULT

    console, rates, at_once, statuses = Console(), Rates(), 1, plan.statuses()
    missing = [trial.config for trial in plan.trials if statuses[trial.folder].state is not State.DONE]
    if missing and options.launcher == "local":
        places = slots(options.per_device, 1)
        at_once = len(places)
        hardware = probe(places[0])["hardware"]
        if options.measure:
            rates = recorded_rates([options.runs, PUBLISHED], hardware)
            with console.status("timing some steps of nets that have no record on this hardware"):
                measure(rates, missing, places[0], hardware["platform"] == "cpu")
        else:
            rates = estimated_rates([options.runs, PUBLISHED], hardware, missing)
    elif missing:  # the hardware is elsewhere: only records can say
        rates = recorded_rates(options.runs)
    console.print(plan_table(plan, statuses, rates, at_once, console.width))
    if missing and options.launcher == "local" and not options.measure:
        print("nothing was trained for this; --measure times some steps of the nets that have no record")
    metrics = {asked_metric(line.experiment, line.row)[0] for line in plan.lines}
    if tests := sorted(metrics - IN_RESULT.keys()):
        print(f"then, of finished runs as far as it is not done, on the validation images: {', '.join(tests)}")
    forms = dict.fromkeys(line.experiment.form for line in plan.lines)
    if analyses := [form for form in forms if form in ANALYSES]:
        print(f"then, in finished runs as far as it is not done: {', '.join(analyses)}")
    for trial in plan.trials:
        if (found := statuses[trial.folder]).state is State.FAILED:
            reason = " | ".join(found.note.splitlines())
            print(f"{trial.name} failed: {reason} ({trial.folder}); it will be tried again")


def _launch(plan: "Plan", options: argparse.Namespace) -> list[tuple[str, str]]:
    """Carries out what is not done, and returns the name of each failed run and how it ended."""
    from experiments.estimate import recorded_rates
    from experiments.launchers.dashboard import Board, Runs
    from experiments.plan import State
    from resnet_jax.training.stopping import StopRequest

    statuses: dict[Path, Status] = plan.statuses()
    todo = [trial for trial in plan.trials if statuses[trial.folder].state is not State.DONE]
    if not todo:
        return []
    try:
        options.out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"cannot write to --out={options.out}: {error.strerror}") from error
    rates = recorded_rates(options.runs)
    if options.launcher == "ray":
        from experiments.launchers import ray_cluster

        # Ray sets a SIGTERM handler of its own when it connects: ours must come after it.
        with ray_cluster.connected(options.at_once) as cluster, StopRequest() as stop:
            runs = Runs(plan, statuses, rates, cluster.at_once)
            with Board(runs) as board:
                cluster.launch(todo, options.out, board, stop)
    else:
        from experiments.launchers import local
        from experiments.launchers.devices import slots

        places = slots(options.per_device, options.at_once)
        runs = Runs(plan, statuses, rates, len(places))
        with StopRequest() as stop, Board(runs) as board:
            local.launch(todo, places, board, stop)
    failed = runs.failures()
    if stop.signal is not None and any(runs[trial].state != "done" for trial in todo):
        print_failures(failed)
        raise Stopped(
            f"{stop.signal.name}; {len(runs.in_state('done'))} of {len(plan.trials)} runs are done, what ran is saved "
            f"in {options.out}, and the same command goes on from there"
        )
    return failed


def print_failures(failed: Iterable[tuple[str, str]]) -> None:
    """Says what failed, and how."""
    for name, text in failed:
        print(f"\n{name} failed:\n{text}", file=sys.stderr)
