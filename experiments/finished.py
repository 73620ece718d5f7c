"""Tests and analyses finished runs as their tables and figures ask.

It is done in this process, once all runs have ended and their devices are free. What fails for one run stops no other.
"""

import contextlib
import math
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

from experiments.experiment import ANALYSES, Experiment, asked_metric
from experiments.plan import Plan, State, Status, Trial
from experiments.scores import IN_RESULT, evaluation, mismatch, of_others, paper_protocols
from experiments.train_run import locked
from resnet_jax.errors import UserError, counted
from resnet_jax.report.analysis.figures import is_measured
from resnet_jax.training.run_record import RunRecord

#: What failed, and how.
Failures = list[tuple[str, str]]


def evaluate_finished(plan: Plan, statuses: Mapping[Path, Status]) -> Failures:
    """Tests finished runs by their tables' protocols, unless that is done, and returns what failed."""
    failed: Failures = []
    for line in plan.lines:
        metric, recompute_bn = asked_metric(line.experiment, line.row)
        for trial in line.trials:
            detects = trial.config.task == "detection"
            if statuses[trial.folder].state is not State.DONE or metric in IN_RESULT:
                continue
            if detects or (trial.config.data.name == "imagenet" and metric in paper_protocols()):
                with _noted(f"{trial.name}, {metric}", failed):
                    _evaluate(trial, metric, recompute_bn, line.experiment.evaluated_on)
    return failed


def _evaluate(trial: Trial, metric: str, recompute_bn: int, evaluated_on: str) -> None:
    from resnet_jax.cli import evaluate

    def is_tested() -> bool:
        found, result = evaluation(trial.folder, metric, evaluated_on), RunRecord(trial.folder).result()
        if found is None or mismatch(found, metric, recompute_bn, trial.config.data.image_size):
            return False
        return result is None or not of_others(found, result)

    if is_tested():
        return
    with locked(trial.folder):
        if is_tested():  # by another process, which was waited for
            return
        protocol = metric if trial.config.task == "detection" else paper_protocols()[metric].name
        again = [f"--recompute_bn={recompute_bn}"] if recompute_bn else []
        data_dir = trial.config.data.data_dir  # may have moved since the run
        moved = [f"--data_dir={data_dir}"] if data_dir else []
        evaluate.main(
            [f"--workdir={trial.folder}", f"--protocol={protocol}", *again, *moved, "--num_processes=1"]
        )  # fmt: skip


def analyse_finished(plan: Plan, statuses: Mapping[Path, Status], end: float = math.inf) -> Failures:
    """Analyses finished runs for the figures that show it, unless that is done, and returns what failed.

    Layer responses are averaged over all seeds; the other figures show the first run of each row.

    Args:
      plan, statuses: the runs, and how far they are.
      end: time of `time.monotonic` from which on no analysis begins; those left out are told.
    """
    failed: Failures = []
    left_out: dict[tuple[str, Path], None] = {}
    for line in plan.lines:
        form = line.experiment.form
        if form not in ANALYSES:
            continue
        for trial in line.trials if form == "responses" else line.trials[:1]:
            if statuses[trial.folder].state is not State.DONE:
                continue
            with _noted(f"{trial.name}, {form}", failed):
                if is_measured(trial.folder, form):
                    continue
                if time.monotonic() >= end:
                    left_out[form, trial.folder] = None
                    continue
                _analyse(trial, line.experiment)
    if left_out:
        forms = dict.fromkeys(form for form, _ in left_out)
        print(f"the time is over: {', '.join(forms)} of {counted(len(left_out), 'run')} are left for the next time")
    return failed


def _analyse(trial: Trial, experiment: Experiment) -> None:
    from resnet_jax.cli.analyze import analyse

    with locked(trial.folder):
        if not is_measured(trial.folder, experiment.form):  # by another process, which was waited for
            analyse(experiment.form, [trial.folder], trial.config.data.data_dir, dict(experiment.options))


@contextlib.contextmanager
def _noted(what: str, failed: Failures) -> Iterator[None]:
    """Adds a user's mistake in the lines under it to what failed."""
    try:
        yield
    except UserError as error:
        failed.append((what, str(error)))
