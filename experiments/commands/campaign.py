"""`python -m experiments campaign`: as many of the papers' CIFAR-10 rows, at full length, as the time allows.

A short run proves data, accuracy and speed; then the runs go in the order of their worth, those that fit into the time
first. When it is over, what runs saves its state, and the same command goes on from there. At the end the finished
records are copied to results/ and the README is written anew.
"""

import argparse
import time
from collections.abc import Sequence
from pathlib import Path

from experiments.commands.options import RUNS, Parser, changes
from experiments.commands.run import NOT_SET, analyse_finished
from resnet_jax.cli.arguments import number
from resnet_jax.cli.run_command import run_command
from resnet_jax.errors import UserError

#: Of the time, kept for saving states, figures and copies.
RESERVE_SECONDS = 30


def main(arguments: Sequence[str]) -> int:
    """Runs the command and returns its exit status: 0, 1 if a run failed, 2 for a mistake of the user's."""
    failed: list[str] = []
    return run_command(lambda: failed.extend(carry_out(parse(arguments)))) or int(bool(failed))


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    """The options.

    Raises:
      UserError: for one that is unknown or has no such value.
    """
    parser = Parser(prog="python -m experiments campaign", description=__doc__)
    parser.add_argument("--minutes", type=number(float, "a number above 0", 1e-9), required=True,
                        help="how long all of it may take")  # fmt: skip
    parser.add_argument("--at_once", type=number(int, "a whole number of 1 or more", 1), default=1,
                        help="processes that share the device at a time (%(default)s)")  # fmt: skip
    parser.add_argument("--seeds_at_once", type=number(int, "a whole number of 1 or more", 1), default=1,
                        help="seeds of a row that go in one program (%(default)s)")  # fmt: skip
    parser.add_argument("--per_device", action="store_true", help="a run on each device instead of each on all")
    parser.add_argument("--steps_scale", type=number(float, "a number above 0", 1e-9), default=1.0,
                        help="shrinks every schedule by this factor, to try the command")  # fmt: skip
    parser.add_argument("--set", action="append", nargs="+", default=[], metavar="FIELD=VALUE",
                        help="changes config fields of all rows, as data.data_dir=DIR")  # fmt: skip
    parser.add_argument("--out", type=Path, default=RUNS, help="folder of the runs (%(default)s)")
    parser.add_argument("--publish", action=argparse.BooleanOptionalAction, default=True,
                        help="copy finished records to results/ and rewrite the README (%(default)s)")  # fmt: skip
    options = parser.parse_args(arguments)
    options.changes = changes(options.set, NOT_SET)
    return options


def carry_out(options: argparse.Namespace) -> list[str]:
    """The whole command; returns the names of runs that failed.

    Raises:
      UserError: for what cannot be run, and if the short run does not show what it should.
    """
    from rich.console import Console

    from experiments import campaign, registry
    from experiments.board import Runs, make_board
    from experiments.estimate import Rates, add_records, duration
    from experiments.launchers import local
    from experiments.launchers.devices import slots
    from experiments.plan import Line, Plan, State, Trial, packs, status
    from experiments.plan_table import plan_table

    end = time.monotonic() + 60 * options.minutes - RESERVE_SECONDS
    console = Console()
    everything = campaign.make_campaign(options.out, options.steps_scale, options.changes)
    if options.changes.get("data.name", "cifar10") == "cifar10":
        campaign.check_cifar(options.changes.get("data.data_dir"))
    places = slots(options.per_device, options.at_once)

    def launch(plan: Plan, packed: Sequence[tuple[Trial, ...]], rates: Rates) -> dict[str, str]:
        runs = Runs(plan, {t.folder: status(t) for t in plan.trials}, rates, len(places))
        with campaign.Deadline(end) as stop, make_board(runs) as board:
            local.launch(packed, places, board, stop)
        return {trial.name: runs[trial].text.strip() for trial in runs.in_state("failed")}

    proofs = campaign.proof_trials(
        options.out, len(places) * options.seeds_at_once, options.steps_scale, options.changes
    )
    row = registry.Row("proof", "short run of ResNet-20")
    first = [trial for trial in proofs if status(trial).state is not State.DONE]
    if first:
        launch(Plan((Line("proof", row, tuple(proofs), tuple(proofs)),)), packs(first, options.seeds_at_once), Rates())
    if any(status(trial).state is not State.DONE for trial in proofs) and time.monotonic() >= end:
        raise UserError(f"--minutes={options.minutes:g} is over before the short run is; give it more")
    proof = campaign.check_proof(proofs, options.steps_scale)
    errors = ", ".join(f"{result.test_error:.2f} %" for result in proof.results)
    print(
        f"short run: test error {errors} after {proof.results[0].steps} steps; {proof.images_per_second:,.0f} "
        f"images/s, {proof.overhead:.0f} s to start"
    )
    rates = Rates()
    add_records(rates, options.out, proof.results[0].hardware)
    seconds_of = campaign.Seconds(rates, proof, proofs[0].config)
    todo = [trial for trial in everything.trials if status(trial).state is not State.DONE]
    left = end - time.monotonic()
    inside, outside = campaign.fitting(todo, seconds_of, left, len(places))
    names = ", ".join(trial.name for trial in inside) or "none"
    print(f"{len(inside)} of {len(todo)} runs fit into {duration(left)}: {names}; the others begin if time is left")
    packed = [*everything.packs(inside, options.seeds_at_once), *everything.packs(outside, options.seeds_at_once)]
    failed = launch(everything.plan, packed, rates) if todo else {}
    statuses = {trial.folder: status(trial) for trial in everything.trials}
    console.print(plan_table(everything.plan, statuses, None))
    experiments = [registry.load(stage.experiment) for stage in campaign.STAGES]
    analyse_finished(experiments, everything.plan, statuses)
    done = [found for found in statuses.values() if found.state is State.DONE]
    if options.publish and done:
        from experiments.publish import publish

        for folder in publish(options.out):
            print(folder)
    for name, text in failed.items():
        print(f"\n{name} failed:\n{text}")
    return list(failed)
