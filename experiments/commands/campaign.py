"""`python -m experiments campaign`: as many of the papers' CIFAR-10 rows, at full length, as the time allows.

A short run proves data, accuracy and speed. Then the runs go in order of importance, those that fit into the time
first. When the time is over, what runs saves its state, and the same command goes on from there. At the end the
finished records are copied to results/ and the README is rewritten.
"""

import argparse
import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from experiments.commands.options import changes
from experiments.commands.run import NOT_SET, absolute, add_launch_options, print_failures, show_plan
from resnet_jax.cli.arguments import Parser, number
from resnet_jax.errors import Stopped, UserError

if TYPE_CHECKING:
    from experiments.plan import Plan

#: Seconds that are kept for saving states, figures and copies.
RESERVE_SECONDS = 30


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    """Returns the options.

    Raises:
      UserError: for an unknown option or a value that does not fit.
    """
    parser = Parser(prog="python -m experiments campaign", description=__doc__)
    parser.add_argument("--minutes", type=number(float, "a number above 0", 1e-9), required=True,
                        help="how long all of it may take")  # fmt: skip
    add_launch_options(parser)
    parser.add_argument("--publish", action=argparse.BooleanOptionalAction, default=True,
                        help="copy finished records to results/ and rewrite the README (%(default)s)")  # fmt: skip
    options = parser.parse_args(arguments)
    options.changes = absolute(changes(options.set, NOT_SET))
    return options


def main(arguments: Sequence[str]) -> list[str]:
    """Carries out the whole command and returns the names of the runs that failed.

    Raises:
      UserError: for what cannot be run, and if the short run does not show what it should.
      Stopped: after a signal; nothing is analysed or published then.
    """
    options = parse(arguments)
    from experiments import campaign_plan
    from experiments.estimate import Rates, duration, recorded_rates
    from experiments.experiment import Experiment, Row
    from experiments.finished import analyse_finished
    from experiments.launchers import local
    from experiments.launchers.dashboard import Board, Runs
    from experiments.launchers.devices import slots
    from experiments.plan import Line, Plan, State, Trial, status
    from resnet_jax.training.stopping import SIGNALS

    end = time.monotonic() + 60 * options.minutes - RESERVE_SECONDS
    everything = campaign_plan.make_campaign(options.out, options.steps_scale, options.changes)
    if options.changes.get("data.name", "cifar10") == "cifar10":
        campaign_plan.check_cifar(options.changes.get("data.data_dir"))
    places = slots(options.per_device, options.at_once)

    def unfinished(trials: Sequence[Trial]) -> list[Trial]:
        return [trial for trial in trials if status(trial).state is not State.DONE]

    def launch(plan: Plan, trials: Sequence[Trial], rates: Rates) -> list[tuple[str, str]]:
        runs = Runs(plan, plan.statuses(), rates, len(places))
        with campaign_plan.Deadline(end) as stop, Board(runs) as board:
            local.launch(trials, places, board, stop)
        if stop.signal in SIGNALS:
            print_failures(runs.failures())
            raise Stopped(f"{stop.signal.name}; what ran is saved in {options.out}, and the same command goes on there")
        return runs.failures()

    proofs = tuple(campaign_plan.proof_trials(options.out, len(places), options.steps_scale, options.changes))
    if first := unfinished(proofs):
        row = Row("proof", "short run of ResNet-20")
        launch(Plan((Line(Experiment("proof", row.label, (row,)), row, proofs),), proofs), first, Rates())
    if unfinished(proofs) and time.monotonic() >= end:
        raise UserError(f"--minutes={options.minutes:g} is over before the short run is; give it more")
    proof = campaign_plan.check_proof(proofs, options.steps_scale)
    errors = ", ".join(f"{result.metrics['test_error']:.2f} %" for result in proof.results)
    print(f"short run: test error {errors} after {proof.results[0].steps} steps; "
          f"{proof.images_per_second:,.0f} images/s, {proof.overhead:.0f} s to start")  # fmt: skip
    rates = recorded_rates(options.out, proof.results[0].hardware)
    seconds_of = campaign_plan.Seconds(rates, proof, proofs[0].config)
    todo, left = unfinished(everything.trials), end - time.monotonic()
    inside, outside = campaign_plan.fitting(todo, seconds_of, left, len(places))
    names = ", ".join(trial.name for trial in inside) or "none"
    print(f"{len(inside)} of {len(todo)} runs fit into {duration(left)}: {names}; the others begin if time is left")
    failed = launch(everything, [*inside, *outside], rates) if todo else []
    show_plan(everything)
    statuses = everything.statuses()
    failed += analyse_finished(everything, statuses, end)
    print_failures(failed)
    if options.publish and any(found.state is State.DONE for found in statuses.values()):
        if other_runs(everything, options.changes):
            print("nothing is published: with these fields of --set, the runs are not those of the papers' tables")
        else:
            from experiments.publish import publish

            for folder in publish(options.out):
                print(folder)
    return [name for name, _ in failed]


def other_runs(plan: "Plan", changes: Mapping[str, Any]) -> bool:
    """Returns whether changed fields make the runs of any row others than the papers'."""
    from experiments.run_index import seedless_hash

    return any(seedless_hash(line.row, 1.0, changes) != seedless_hash(line.row, 1.0) for line in plan.lines)
