"""Reads a run's errors, or average precisions, by the names that experiments use.

`test_error` is in the run's result, as are the metrics of a detector. Numbers by other ways of testing (ten crops,
several scales, one crop of a size, refined boxes) are read from `evaluations/<metric>.json` in the run's folder, as
`python -m resnet_jax evaluate --protocol` writes it, and taken only if it tested as the papers did.
"""

import functools
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from resnet_jax.atomic_write import read_json_object
from resnet_jax.errors import UserError
from resnet_jax.evaluation.protocols import NAMES, PhotographProtocol, choose_for_photographs
from resnet_jax.report.run_data import Run
from resnet_jax.training.result import Result
from resnet_jax.training.run_record import RunRecord

#: Field of an evaluation for each column of a table.
FIELDS = {"error": "test_error", "top1": "test_error", "top5": "top5_error", "ap50": "test_ap50", "ap": "test_ap"}

#: Metrics that a run's own result has, for which nothing else is read: its field for each column.
IN_RESULT: Mapping[str, Mapping[str, str]] = {
    "test_error": {"error": "test_error", "top1": "test_error"},
    "train_error": {"error": "train_error", "top1": "train_error"},
    "test_ap50_11_point": {"ap50": "test_ap50_11_point"},
    "test_ap": {"ap50": "test_ap50", "ap": "test_ap"},
}


@functools.cache
def paper_protocols() -> Mapping[str, PhotographProtocol]:
    """Returns the papers' ways of testing on ImageNet, by the metrics that they measure."""
    chosen = [choose_for_photographs(name) for name in NAMES if name != "single_view"]
    return {protocol.metric: protocol for protocol in chosen}


def run_errors(run: Run, metric: str, recompute_bn: int = 0, evaluated_on: str = "test"
               ) -> tuple[Mapping[str, float], str]:  # fmt: skip
    """Returns a run's numbers in percent, by column; and a sentence if its evaluation is not what its row asks for.

    There are none if the run is not finished or was not tested so. An error that was chosen as the best of several on
    the test set is never taken.

    Args:
      run: the run.
      metric: one of `IN_RESULT`, or a way of testing.
      recompute_bn, evaluated_on: what the row asks for, see `experiment.Experiment`.
    """
    if run.result is None:
        return {}, ""
    if metric in IN_RESULT:
        metrics = run.result.metrics
        return {column: metrics[name] for column, name in IN_RESULT[metric].items() if name in metrics}, ""
    try:
        found = evaluation(run.workdir, metric, evaluated_on)
        if found is None:
            return {}, ""
        image_size = RunRecord(run.workdir).config().data.image_size
    except UserError as error:
        return {}, f"Left out: {error}."
    if reason := mismatch(found, metric, recompute_bn, image_size) or of_others(found, run.result):
        return {}, f"{run.workdir.name}/evaluations/{metric}.json is left out: {reason}."
    return {column: found[field] for column, field in FIELDS.items() if found.get(field) is not None}, ""


def held_out(run: Run, evaluated_on: str = "test") -> bool:
    """Returns whether a finished run was tested on other images than its table is of."""
    return run.result is not None and run.result.evaluated_on != evaluated_on


def evaluation(folder: Path, metric: str, evaluated_on: str = "test") -> Mapping[str, Any] | None:
    """Returns a run's evaluation by that metric, None if there is none on those images. A detector's metrics lie flat.

    Raises:
      UserError: if it cannot be read.
    """
    path = folder / "evaluations" / f"{metric}.json"
    try:
        found = read_json_object(path)
    except FileNotFoundError:
        return None
    if isinstance(metrics := found.get("metrics"), Mapping):
        found = {**found, **metrics}
    for name in (*FIELDS.values(), "recompute_bn"):
        if type(found.get(name, 0)) not in (int, float):
            raise UserError(f"{path} is damaged: {name} is no number")
    return found if found.get("evaluated_on") == evaluated_on else None


def of_others(found: Mapping[str, Any], result: Result) -> str:
    """Returns how an evaluation is not of the run's last weights, as a part of a sentence; empty if it is."""
    hashes = found.get("config_hashes", [found.get("config_hash", result.config_hash)])
    if list(hashes) != [result.config_hash]:
        return "it is of another config than the run"
    last = result.steps if result.kept_step is None else result.kept_step
    step = found.get("step", last)
    return "" if step == last else f"it is of the weights of step {step}, and the run ends with those of step {last}"


def mismatch(found: Mapping[str, Any], metric: str, recompute_bn: int, image_size: int) -> str:
    """Returns how an evaluation differs from what a row asks for, as a part of a sentence; empty if it does not.

    Args:
      found: an evaluation's record.
      metric: by which it was found.
      recompute_bn: training images that batch norm's statistics must be averaged over at least; 0: the statistics
        must be those of training.
      image_size: `config.data.image_size` of the run, of which a detector's sizes are shares.
    """
    if metric not in paper_protocols():
        return _other_detection(found, metric, image_size)
    protocol = paper_protocols()[metric]
    sides, expected = found.get("shorter_sides"), list(protocol.shorter_sides)
    if found.get("protocol") != protocol.name:
        return f"it was tested by {found.get('protocol')}, and the paper's is {protocol.name}"
    if sides != expected:
        return f"its images had shorter sides {sides}, and the paper's {expected}"
    if found.get("crop") != protocol.crop:
        return f"its crops had {found.get('crop')} pixels, and the paper's {protocol.crop}"
    if protocol.fully_convolutional and not found.get("pool_size"):
        return "it averaged all positions at once, and the authors' net keeps its 7x7 pool"
    count = found.get("recompute_bn", 0)
    if recompute_bn and count < recompute_bn:
        return f"batch norm's statistics are of {count:,} images, and the row asks for --recompute_bn={recompute_bn}"
    if count and not recompute_bn:
        return "batch norm's statistics were computed again, and the row asks for those of training"
    return ""


def _other_detection(found: Mapping[str, Any], metric: str, image_size: int) -> str:
    """Returns how a detector's evaluation differs from the paper's, see `mismatch`; empty for other metrics."""
    from resnet_jax.evaluation.detection import PROTOCOLS, paper_sides

    if metric not in PROTOCOLS:
        return ""
    sides, expected = found.get("shorter_sides"), list(paper_sides(metric, image_size))
    if found.get("protocol") != metric:
        return f"it was tested by {found.get('protocol')}, and the paper's is {metric}"
    return "" if sides == expected else f"its images had shorter sides {sides}, and the paper's {expected}"
