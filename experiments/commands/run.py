"""`python -m experiments NAME run`: carries out what a table or figure still lacks."""

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from experiments import registry
from experiments.commands.options import RUNS, Parser, changes
from experiments.plan import Plan, State, Status, make_plan, packs, status
from resnet_jax.cli.arguments import number
from resnet_jax.cli.run_command import run_command
from resnet_jax.errors import Stopped, UserError

#: Exit status where a run failed; see `resnet_jax.cli.run_command` for the others.
FAILED = 1

#: Fields that `--set` does not take, and why.
NOT_SET = {"seed": "that is what --seeds is for", "steps_scale": "that is what --steps_scale is for"}


def main(name: str, arguments: Sequence[str]) -> int:
    """Runs the command and returns its exit status.

    Args:
      name: of a table or figure, of a paper for all of it, or several of them with commas between.
      arguments: those behind `run`.

    Returns:
      0, 1 if a run failed, 2 for a mistake of the user's, 75 after a signal, with the state of all runs saved.
    """
    failed: list[str] = []

    def command() -> None:
        failed.extend(carry_out([registry.load(one) for one in registry.expand(name)], parse(name, arguments)))

    return run_command(command) or (FAILED if failed else 0)


def parse(name: str, arguments: Sequence[str]) -> argparse.Namespace:
    """The options.

    Raises:
      UserError: for one that is unknown or has no such value.
    """
    parser = Parser(prog=f"python -m experiments {name} run", description=__doc__)
    add_options(parser)
    options = parser.parse_args(arguments)
    options.changes = changes(options.set, NOT_SET)
    if options.launcher == "ray" and options.per_device:
        raise UserError("--per_device is for --launcher=local: Ray gives each run a device anyway")
    return options


def add_options(parser: argparse.ArgumentParser) -> None:
    """Adds what the command can be told."""
    positive = number(int, "a whole number of 1 or more", 1)
    parser.add_argument("--seeds", type=positive, help="runs of each row; by default as many as the paper made")
    parser.add_argument("--rows", type=_names, default=[], help="names of rows, with commas between; all by default")
    parser.add_argument("--steps_scale", type=number(float, "a number above 0", 1e-9), default=1.0,
                        help="shrinks every schedule by this factor, and every record says so")  # fmt: skip
    parser.add_argument("--set", action="append", nargs="+", default=[], metavar="FIELD=VALUE",
                        help="changes config fields of all rows, as data.data_dir=DIR")  # fmt: skip
    parser.add_argument("--out", type=Path, default=RUNS, help="folder of the runs (%(default)s)")
    parser.add_argument("--dry_run", action="store_true", help="only say what there is, what is missing, and how long "
                        "that takes")  # fmt: skip
    parser.add_argument("--launcher", choices=("local", "ray"), default="local",
                        help="this machine, or the Ray cluster that RAY_ADDRESS names")  # fmt: skip
    parser.add_argument("--per_device", action="store_true", help="a run on each device instead of each on all")
    parser.add_argument("--at_once", type=positive, default=1,
                        help="processes that share a device at a time (%(default)s)")  # fmt: skip
    parser.add_argument("--seeds_at_once", type=positive, default=1,
                        help="seeds of a row that go in one program (%(default)s)")  # fmt: skip


def carry_out(experiments: Sequence[registry.Experiment], options: argparse.Namespace) -> list[str]:
    """Runs what is missing and says what came of it.

    Returns:
      The names of the runs that failed.

    Raises:
      UserError: for what cannot be run.
      Stopped: after a signal.
    """
    from rich.console import Console

    from experiments.plan_table import plan_table

    if options.rows and len(experiments) > 1:
        raise UserError("--rows is for one table or figure at a time")
    scale, fields = options.steps_scale, options.changes
    plan = make_plan(
        experiments, options.out, rows=options.rows, seeds=options.seeds, steps_scale=scale, changes=fields
    )
    if options.launcher == "local":
        check_data(plan)
    statuses = {trial.folder: status(trial) for trial in plan.trials}
    if options.dry_run:
        _dry_run(experiments, plan, statuses, options)
        return []
    failed = _launch(plan, statuses, options)
    statuses = {trial.folder: status(trial) for trial in plan.trials}
    Console().print(plan_table(plan, statuses, None))
    evaluate_finished(experiments, plan, statuses)
    analyse_finished(experiments, plan, statuses)
    for name, text in failed.items():
        print(f"\n{name} failed:\n{text}", file=sys.stderr)
    return list(failed)


def evaluate_finished(experiments: Sequence[registry.Experiment], plan: Plan, statuses: dict[Path, Status]) -> None:
    """Tests finished runs on photographs as their tables ask, in this process: no run needs the devices any more."""
    from experiments.scores import IN_RESULT, evaluation, mismatch, paper_protocols
    from resnet_jax.cli import evaluate

    by_name = {one.name: one for one in experiments}
    for line in plan.lines:
        metric, recompute_bn = registry.asked_metric(by_name[line.experiment], line.row)
        for trial in line.trials:
            done = statuses[trial.folder].state is State.DONE and trial.config.data.name == "imagenet"
            if not done or metric in IN_RESULT or metric not in paper_protocols():
                continue
            found = evaluation(trial.folder, metric)
            if found is None or mismatch(found, metric, recompute_bn):
                protocol = f"--protocol={paper_protocols()[metric].name}"
                again = [f"--recompute_bn={recompute_bn}"] if recompute_bn else []
                evaluate.main([f"--workdir={trial.folder}", protocol, *again, "--num_processes=1"])


def analyse_finished(experiments: Sequence[registry.Experiment], plan: Plan, statuses: dict[Path, Status]) -> None:
    """Measures in the finished runs, in this process: no run needs the devices any more."""
    from experiments.analysis import to_measure

    for analysis, folder, data_dir, asked in to_measure(experiments, plan, statuses):
        from resnet_jax.cli.analyze import analyse

        analyse(analysis, [folder], data_dir, asked)


def check_data(plan: Plan) -> None:
    """Raises UserError for a folder of data that is not there, before every run fails of it."""
    for folder in {trial.config.data.data_dir for trial in plan.trials} - {None}:
        if not Path(folder).expanduser().is_dir():
            raise UserError(f"data.data_dir={folder} is not a folder")


def _dry_run(
    experiments: Sequence[registry.Experiment],
    plan: Plan,
    statuses: dict[Path, Status],
    options: argparse.Namespace,
) -> None:
    from rich.console import Console

    from experiments.estimate import Rates, add_records, measure
    from experiments.launchers.devices import probe, slots
    from experiments.plan_table import plan_table

    rates, at_once = Rates(), 1
    missing = [trial.config for trial in plan.trials if statuses[trial.folder].state is not State.DONE]
    console = Console()
    if missing:
        if options.launcher == "local":
            places = slots(options.per_device, 1)
            at_once = len(places)
            add_records(rates, options.out, probe(places[0])["hardware"])
            with console.status("timing some steps of nets that have no record on this hardware"):
                measure(rates, missing, {**os.environ, **places[0]})
        else:  # the hardware is elsewhere: records alone can say
            add_records(rates, options.out, None)
    console.print(plan_table(plan, statuses, rates, at_once))
    metrics = {registry.asked_metric(one, row)[0] for one in experiments for row in registry.runnable(one)}
    if tests := sorted(metrics - {"test_error"}):
        print(f"then, of finished runs as far as it is not done, on the validation images: {', '.join(tests)}")
    forms = [one.form for one in experiments if one.form in registry.ANALYSES]
    if forms:
        print(f"then, in finished runs as far as it is not done: {', '.join(dict.fromkeys(forms))}")
    for trial in plan.trials:
        if (found := statuses[trial.folder]).state is State.FAILED:
            print(
                f"{trial.name} failed: {' | '.join(found.note.splitlines())} ({trial.folder}); it will be tried again"
            )


def _launch(plan: Plan, statuses: dict[Path, Status], options: argparse.Namespace) -> dict[str, str]:
    """Carries out what is not done; returns what is to be said of each run that failed."""
    from experiments.board import Runs, make_board
    from experiments.estimate import Rates, add_records
    from experiments.launchers.process import LOG
    from resnet_jax.training.stop import StopRequest

    todo = [trial for trial in plan.trials if statuses[trial.folder].state is not State.DONE]
    if not todo:
        return {}
    try:
        options.out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"cannot write to --out={options.out}: {error.strerror}") from error
    rates = Rates()
    add_records(rates, options.out, None)
    if options.launcher == "ray":
        from experiments.launchers import ray_cluster

        # Ray puts a handler of SIGTERM of its own in place when it connects: ours comes behind it.
        with ray_cluster.connected(options.at_once) as cluster, StopRequest() as stop:
            runs = Runs(plan, statuses, rates, cluster.at_once)
            with make_board(runs) as board:
                cluster.launch(packs(todo, options.seeds_at_once), options.out, board, stop)
    else:
        from experiments.launchers import local
        from experiments.launchers.devices import slots

        places = slots(options.per_device, options.at_once)
        runs = Runs(plan, statuses, rates, len(places))
        with StopRequest() as stop, make_board(runs) as board:
            local.launch(packs(todo, options.seeds_at_once), places, board, stop)
    failed = {t.name: f"{runs[t].text.strip()}\nlog: {t.folder / LOG}" for t in runs.in_state("failed")}
    if stop.signal is not None and any(runs[trial].state != "done" for trial in todo):
        for name, text in failed.items():
            print(f"\n{name} failed:\n{text}", file=sys.stderr)
        raise Stopped(
            f"{stop.signal.name}; {len(runs.in_state('done'))} of {len(plan.trials)} runs are done, what ran is saved "
            f"in {options.out}, and the same command goes on from there"
        )
    return failed


def _names(text: str) -> list[str]:
    return [name for name in text.split(",") if name]
