"""Tests and analyses finished runs as their tables and figures ask.

It is done in this process, once all runs have ended and their devices are free.
"""

from collections.abc import Mapping
from pathlib import Path

from experiments.experiment import ANALYSES, asked_metric
from experiments.plan import Plan, State, Status
from experiments.scores import IN_RESULT, evaluation, mismatch, of_others, paper_protocols
from resnet_jax.report.analysis.figures import is_measured
from resnet_jax.training.run_record import RunRecord


def evaluate_finished(plan: Plan, statuses: Mapping[Path, Status]) -> None:
    """Tests finished runs by their tables' protocols, unless that is done."""
    from resnet_jax.cli import evaluate

    for line in plan.lines:
        metric, recompute_bn = asked_metric(line.experiment, line.row)
        for trial in line.trials:
            detects = trial.config.task == "detection"
            if statuses[trial.folder].state is not State.DONE or metric in IN_RESULT:
                continue
            if not detects and (trial.config.data.name != "imagenet" or metric not in paper_protocols()):
                continue
            found = evaluation(trial.folder, metric, line.experiment.evaluated_on)
            result = RunRecord(trial.folder).result()
            size = trial.config.data.image_size
            if found is None or mismatch(found, metric, recompute_bn, size) or (result and of_others(found, result)):
                protocol = f"--protocol={metric if detects else paper_protocols()[metric].name}"
                again = [f"--recompute_bn={recompute_bn}"] if recompute_bn else []
                data_dir = trial.config.data.data_dir  # may have moved since the run
                moved = [f"--data_dir={data_dir}"] if data_dir else []
                evaluate.main([f"--workdir={trial.folder}", protocol, *again, *moved, "--num_processes=1"])


def analyse_finished(plan: Plan, statuses: Mapping[Path, Status]) -> None:
    """Analyses finished runs for the figures that show it, unless that is done.

    Layer responses are averaged over all seeds; the other figures show the first run of each row.
    """
    from resnet_jax.cli.analyze import analyse

    for line in plan.lines:
        form = line.experiment.form
        if form not in ANALYSES:
            continue
        for trial in line.trials if form == "responses" else line.trials[:1]:
            if statuses[trial.folder].state is State.DONE and not is_measured(trial.folder, form):
                analyse(form, [trial.folder], trial.config.data.data_dir, dict(line.experiment.options))
