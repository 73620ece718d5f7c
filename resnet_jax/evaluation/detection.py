"""Tests runs that detect: whole images, also at several sizes, in two rounds, and by several nets together."""

import contextlib
import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
from jax import Array

from resnet_jax.config import config_hash
from resnet_jax.data.detection.batches import Batch
from resnet_jax.data.detection.pipeline import BoxPipeline
from resnet_jax.errors import UserError, some, unknown_name
from resnet_jax.evaluation.evaluate_runs import ENSEMBLE, Progress
from resnet_jax.evaluation.evaluation_files import EVALUATIONS, write_tables
from resnet_jax.evaluation.find_objects import Member, Shown, find_objects
from resnet_jax.evaluation.open_run import OpenRun, open_run
from resnet_jax.evaluation.scoring import silent
from resnet_jax.tasks.average_precision import Curve, area_under
from resnet_jax.tasks.detection import Detection, unpadded
from resnet_jax.training.distributed import batch_sharded, is_chief, replicated
from resnet_jax.training.result import commit, hardware, versions

#: Ways of finding objects: in images at their size of training, in two rounds (He et al. 2015, appendix B, "box
#: refinement"), with regions seen at several sizes ("multi-scale testing"), and both.
PROTOCOLS = ("whole_image", "box_refinement", "multi_scale", "refined_multi_scale")

#: Shorter sides of images in multi-scale testing, in thirds of that of training: 200 to 1,000 for 600.
THIRDS = (1, 2, 3, 4, 5)


@dataclasses.dataclass(frozen=True)
class DetectionResult:
    """Holds the result of a test over `examples` images, each counted once.

    Attributes:
      models: names of the nets, several in an ensemble.
      dataset: name.
      protocol: one of `PROTOCOLS`.
      shorter_sides: of the images at which regions are seen, in pixels; regions are proposed at that of training.
      evaluated_on: "test", "validation", or "held_out" for a part of the training set.
      step: steps that the net was trained for; of an ensemble, those of each net.
      unreadable: images among them that could not be read, and were shown grey.
      metrics: see `tasks.detection.Detection.eval_metrics`.
      config_hashes: of the runs.
      commit, versions, hardware: of the test, see the functions of `training.result`.
    """

    models: tuple[str, ...]
    dataset: str
    protocol: str
    shorter_sides: tuple[int, ...]
    evaluated_on: str
    step: int | tuple[int, ...]
    examples: int
    unreadable: int
    metrics: dict[str, float]
    config_hashes: tuple[str, ...]
    commit: str
    versions: dict[str, str]
    hardware: dict[str, Any]


@dataclasses.dataclass(frozen=True)
class EvaluatedDetection:
    """Holds a test's result, and what its files are made of.

    Attributes:
      result: the record.
      curves: precision over recall of each class at an IoU of 0.5.
      classes: their names.
      warnings: sentences on newer checkpoints that could not be read.
      unreadable: sentences on images that this process could not read.
    """

    result: DetectionResult
    curves: tuple[Curve, ...]
    classes: tuple[str, ...]
    warnings: tuple[str, ...] = ()
    unreadable: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """Returns the name of its files: the protocol, or "ensemble"."""
        return ENSEMBLE if len(self.result.models) > 1 else self.result.protocol


def evaluate_detection(workdirs: Sequence[str | Path | OpenRun], protocol: str = "whole_image",
                       scales: Sequence[int] = (), data_dir: str | None = None,
                       progress: Progress | None = None) -> EvaluatedDetection:  # fmt: skip
    """Tests the newest checkpoint of a run, or of several as an ensemble; several processes call this together.

    Args:
      workdirs: the runs' folders, or open runs, whose task is detection.
      protocol: one of `PROTOCOLS`.
      scales: shorter sides in pixels for the two with "multi_scale"; unset: see `THIRDS`.
      data_dir: where the data are, if not where the runs found them.
      progress: a context manager that gives a progress callback, called with (images done, images in all).

    Raises:
      UserError: for another protocol, sizes that an image cannot have, and runs of different classes or images.
    """
    if protocol not in PROTOCOLS:
        raise unknown_name("protocol", protocol, PROTOCOLS)
    runs = [open_run(workdir, data_dir) for workdir in workdirs]
    first, pipelines = runs[0], _pipelines(runs)
    base, mesh = first.config.data.image_size, first.trainer.mesh
    pyramid = _shorter_sides(first, protocol, scales)
    sides = sorted({base, *pyramid})
    task = first.trainer.task
    assert isinstance(task, Detection)
    everywhere, shared = replicated(mesh), batch_sharded(mesh)

    def test(variables: Sequence[Any], normalizers: Sequence[Any], batches: Sequence[Batch], mask: Array) -> Any:
        members = []
        for run, pipeline, own, normalizer in zip(runs, pipelines, variables, normalizers, strict=True):
            inputs = dict(zip(sides, (pipeline.eval_batch(normalizer, batch)[0] for batch in batches), strict=True))
            shown = {side: Shown(one["images"], one["sizes"]) for side, one in inputs.items()}
            views, proposals = [shown[side] for side in pyramid], inputs[base].get("proposals")
            members.append(Member(run.trainer.model, own, shown[base], views, proposals))
        found = find_objects(members, refine="refine" in protocol)
        return task.evaluate(found, None, batches[sides.index(base)], mask)

    step = jax.jit(test, in_shardings=(everywhere, everywhere, shared, shared), out_shardings=everywhere)
    variables, normalizers = [run.state.tested_variables for run in runs], [pipeline.test for pipeline in pipelines]
    found, done = [], 0
    with progress or contextlib.nullcontext(silent) as report:
        for batches, mask in pipelines[0].test_pyramids(sides):
            sent = pipelines[0].send((batches, mask), shared)
            found.append(jax.device_get(step(variables, normalizers, *sent)))
            done += int(found[-1]["mask"].sum())
            report(done, pipelines[0].test_size)
    assert done == pipelines[0].test_size
    metrics, curves = task.metrics_of(*unpadded(found))
    steps = tuple(run.step for run in runs)
    result = DetectionResult(
        tuple(run.config.model.name for run in runs), first.config.data.name, protocol, pyramid or (base,),
        first.trainer.evaluated_on, steps[0] if len(steps) == 1 else steps, done, first.trainer.unreadable(),
        metrics, tuple(config_hash(run.config) for run in runs), commit(), versions(),
        hardware(jax.devices()),
    )  # fmt: skip
    passed_over = (f"{note}; the one before it is evaluated" for run in runs for note in run.passed_over)
    return EvaluatedDetection(result, curves, pipelines[0].classes, tuple(passed_over), tuple(pipelines[0].warnings()))


def paper_sides(protocol: str, image_size: int) -> tuple[int, ...]:
    """Returns the shorter sides, rising, at which a protocol of the paper's sees regions, for nets of that size."""
    if "multi_scale" not in protocol:
        return (image_size,)
    return tuple(sorted({round(image_size * third / 3) for third in THIRDS}))


def _pipelines(runs: Sequence[OpenRun]) -> list[BoxPipeline]:
    """Returns the runs' data; raises UserError if they are not all of the same classes and test images."""
    found: list[BoxPipeline] = []
    for run in runs:
        pipeline: Any = run.trainer.pipeline
        if not isinstance(pipeline, BoxPipeline):
            raise UserError(f"{run} is a run for {run.config.task}: an ensemble of nets that detect needs such alone")
        first = found[0] if found else pipeline
        if pipeline.classes != first.classes:
            raise UserError(f"{run} has the classes {some(pipeline.classes, 5)} and the first run "
                            f"{some(first.classes, 5)}: an ensemble needs runs of the same classes")  # fmt: skip
        if run.config.data.image_size != runs[0].config.data.image_size:
            raise UserError(f"{run} has config.data.image_size={run.config.data.image_size} and the first run "
                            f"{runs[0].config.data.image_size}: an ensemble needs runs of one size")  # fmt: skip
        if pipeline.test_loader.fingerprint() != first.test_loader.fingerprint():
            raise UserError(f"{run} has other test images than the first run: an ensemble needs the same")
        found.append(pipeline)
    return found


def _shorter_sides(run: OpenRun, protocol: str, scales: Sequence[int]) -> tuple[int, ...]:
    """Returns the sizes at which regions are seen, rising; none: at the size of training."""
    if "multi_scale" not in protocol:
        if scales:
            raise UserError(f"--scales is for multi_scale and refined_multi_scale, not for {protocol}")
        return ()
    sides = tuple(sorted(set(scales or paper_sides(protocol, run.config.data.image_size))))
    least = max(run.trainer.model.strides)
    if len(sides) < 2 or sides[0] < least:
        raise UserError(f"--scales={','.join(map(str, scales or sides))} must be two or more shorter sides of images, "
                        f"of {least} pixels at least, as 400,600,800")  # fmt: skip
    return sides


def write_detection(tested: EvaluatedDetection, workdir: str | Path) -> Path:
    """Writes a test into a run's folder: evaluations/NAME.json, see `EvaluatedDetection.name`, and NAME_classes.csv.

    Returns:
      The path of the JSON file.

    Raises:
      UserError: if the folder cannot be written to.
    """
    path = Path(workdir).expanduser() / EVALUATIONS / f"{tested.name}.json"
    if is_chief():
        rows = [(name, curve.objects, f"{100 * area_under(curve):.4f}" if curve.objects else "")
                for name, curve in zip(tested.classes, tested.curves, strict=True)]  # fmt: skip
        tables: dict[str, list] = {"classes": [("class", "objects", "ap50_percent"), *rows]}
        write_tables(path, tables, json.dumps(dataclasses.asdict(tested.result), indent=2))
    return path
