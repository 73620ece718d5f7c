"""`evaluate`: tests the newest checkpoint of a run, an ensemble of runs, or weights on the data of a config."""

import contextlib
import dataclasses
import json
import sys
from collections.abc import Sequence
from typing import Any

from absl import flags

from resnet_jax.cli.flags import JSON, PROCESSES, define_config, join_processes, numbers, parse, read_config, verb_flags
from resnet_jax.errors import UserError, counted, printable

USAGE = (
    "evaluate --workdir=DIR[,DIR2...] [--protocol=NAME [--scales=N,N...] [--recompute_bn=N]] [--data_dir=DIR] "
    "[--json], or evaluate --weights=DIR[,DIR2...] --config=FILE [--config.FIELD=VALUE ...] [...]"
)


def main(arguments: Sequence[str]) -> None:
    """Evaluates and prints a sentence, or one JSON object; with a protocol, also leaves files in the run's folder."""
    values = verb_flags(
        ("string", "workdir", None, "the run's folder; several, with commas, are an ensemble of averaged scores"),
        ("string", "weights", None, "instead of --workdir: a folder of weights, or a file as for convert; tested on "
         "the data of --config. Nothing is written"),
        ("string", "protocol", None, "single_view, centre_crop, ten_crop, multi_scale or crop320; for segmentation "
         "whole_image, mirrored or multi_scale; for detection whole_image, box_refinement, multi_scale or "
         "refined_multi_scale; the result is "
         "written into the first run's evaluations/. Unset: single view, or the centre crop of photographs; for one "
         "run, nothing is written then"),
        ("list", "scales", [], "shorter sides for multi_scale, factors in segmentation; unset: the papers', for nets "
         "trained at 224 pixels, that segment or that detect; nets for small images need some"),
        ("integer", "recompute_bn", None, "compute batch-norm statistics from so many training images first"),
        ("string", "data_dir", None, "where the data are, if not where the run found them"), JSON, *PROCESSES,
    )  # fmt: skip
    extra = parse(values, USAGE, define_config(values, arguments))
    workdirs: list[Any] = [part for part in (values.workdir or values.weights or "").split(",") if part]
    if extra or not workdirs or (values.workdir and values.weights):
        raise UserError(f"evaluate needs --workdir or --weights and no other argument; usage: {USAGE}")
    if bool(values.weights) != (values.config is not None):
        raise UserError("--weights needs --config, which says on what data they are tested; a run has its own")
    if values.weights and values.data_dir:
        raise UserError("with --weights, the data directory is --config.data.data_dir=DIR")
    join_processes(values)
    if values.weights:
        workdirs = _open_weights(workdirs, read_config(values))
    tasks = [_task(workdir) for workdir in workdirs]
    if len(set(tasks)) > 1:
        raise UserError(f"an ensemble needs nets for one task, not for {' and '.join(dict.fromkeys(tasks))}")
    if tasks[0] == "segmentation":
        _segmentation(workdirs, values)
        return
    if tasks[0] == "detection":
        _detection(workdirs, values)
        return
    if values.protocol is None and len(workdirs) == 1 and not values.scales and values.recompute_bn is None:
        _single_view(workdirs[0], values)
    else:
        _by_protocol(workdirs, values)


def _open_weights(paths: Sequence[str], config: Any) -> list[Any]:
    from resnet_jax.evaluation.open_run import open_weights

    return [open_weights(path, config, lambda sentence: _warn([sentence])) for path in paths]


def _task(workdir: Any) -> str:
    from resnet_jax.evaluation.open_run import OpenRun, run_config

    return (workdir.config if isinstance(workdir, OpenRun) else run_config(workdir)).task


def _segmentation(workdirs: Sequence[Any], values: flags.FlagValues) -> None:
    if len(workdirs) > 1 or values.recompute_bn is not None:
        raise UserError("ensembles and --recompute_bn are for nets that classify")
    scales = numbers(values, "scales", float, "factors on the size of images, as 0.75,1,1.25")
    if values.protocol is None and not scales:
        _single_view(workdirs[0], values)
        return

    from resnet_jax.cli.progress_bar import progress_bar
    from resnet_jax.evaluation.open_run import open_run
    from resnet_jax.evaluation.scoring import silent
    from resnet_jax.evaluation.segmentation import evaluate_segmentation, write_segmentation
    from resnet_jax.report.draw_segmentation import draw_segmentation
    from resnet_jax.tasks.segmentation import Segmentation
    from resnet_jax.tasks.task import in_words
    from resnet_jax.training.distributed import is_chief

    run, name = open_run(workdirs[0], values.data_dir), values.protocol or "multi_scale"
    with progress_bar(name) if is_chief() else contextlib.nullcontext(silent) as done:
        result, confusion = evaluate_segmentation(run, name, scales, done)
    path = None if values.weights else write_segmentation(result, confusion, run.trainer.pipeline.classes, run.workdir)
    _warn([*(f"{sentence}; the one before it is evaluated" for sentence in run.passed_over),
           *run.trainer.pipeline.warnings()])  # fmt: skip
    if not is_chief():
        return
    if path is not None:
        draw_segmentation(run, result, run.workdir)
    if values.json:
        print(json.dumps(dataclasses.asdict(result)))
        return
    print(f"{result.model} on {result.examples} {result.evaluated_on} images of {result.dataset}"
          f"{_grey(result.unreadable)}, {name.replace('_', ' ')}: "
          f"{in_words(Segmentation, result.metrics, result.evaluated_on)}"
          + ("" if path is None else f"; written to {path}"))  # fmt: skip


def _detection(workdirs: Sequence[Any], values: flags.FlagValues) -> None:
    if values.recompute_bn is not None:
        raise UserError("--recompute_bn is for nets that classify")
    scales = numbers(values, "scales", int, "shorter sides of images in whole pixels, as 400,600,800")
    if values.protocol is None and not scales and len(workdirs) == 1:
        _single_view(workdirs[0], values)
        return

    from resnet_jax.cli.progress_bar import progress_bar
    from resnet_jax.evaluation.detection import evaluate_detection, write_detection
    from resnet_jax.report.draw_detection import draw_detection
    from resnet_jax.tasks.detection import Detection
    from resnet_jax.tasks.task import in_words
    from resnet_jax.training.distributed import is_chief

    name = values.protocol or ("multi_scale" if scales else "whole_image")
    progress = progress_bar(name) if is_chief() else None
    tested = evaluate_detection(workdirs, name, scales, values.data_dir, progress)
    path = None if values.weights else write_detection(tested, workdirs[0])
    _warn([*tested.warnings, *tested.unreadable])
    if not is_chief():
        return
    if path is not None:
        draw_detection(tested, workdirs[0])
    found = tested.result
    if values.json:
        print(json.dumps(dataclasses.asdict(found)))
        return
    net = found.models[0] if len(found.models) == 1 else f"{len(found.models)} nets"
    print(f"{net} on {found.examples} {found.evaluated_on} images of {found.dataset}{_grey(found.unreadable)}, "
          f"{name.replace('_', ' ')}: {in_words(Detection, found.metrics, found.evaluated_on)}"
          + ("" if path is None else f"; written to {path}"))  # fmt: skip


def _single_view(workdir: Any, values: flags.FlagValues) -> None:
    from resnet_jax.evaluation.single_view import evaluate
    from resnet_jax.tasks.choose import task_type
    from resnet_jax.tasks.task import in_words
    from resnet_jax.training.distributed import is_chief

    found = evaluate(workdir, values.data_dir)
    if not is_chief():
        return
    _warn([f"{sentence}; the one before it is evaluated" for sentence in found.passed_over])
    _warn(found.unreadable)
    if values.json:
        print(json.dumps(found.to_json()))
    else:
        trained = "" if values.weights and not found.step else f" after {counted(found.step, 'step')}"
        loss = f", loss {found.test_loss:.4f}" if "test_loss" in found.metrics else ""
        print(
            f"{found.model}{trained} on {found.examples} {found.evaluated_on} images of "
            f"{found.dataset}{_grey(found.shown_grey)}: "
            f"{in_words(task_type(found.task), found.metrics, found.protocol.replace('_', ' '))}{loss}"
        )


def _by_protocol(workdirs: Sequence[Any], values: flags.FlagValues) -> None:
    from resnet_jax.cli.progress_bar import progress_bar
    from resnet_jax.evaluation.evaluate_runs import Progress, evaluate_runs
    from resnet_jax.evaluation.evaluation_files import to_json, write_evaluation
    from resnet_jax.evaluation.scoring import silent
    from resnet_jax.report.draw_evaluation import draw_evaluation
    from resnet_jax.training.distributed import is_chief

    scales = numbers(values, "scales", int, "whole numbers of pixels, as 224,256")

    def report(sentence: str) -> None:
        if is_chief() and not values.json:
            print(sentence, flush=True)

    def progress(title: str) -> Progress:
        return progress_bar(title) if is_chief() else contextlib.nullcontext(silent)

    tested = evaluate_runs(
        workdirs, values.protocol, scales=scales, recompute_bn=values.recompute_bn, data_dir=values.data_dir,
        report=report, progress=progress,
    )  # fmt: skip
    path = None if values.weights else write_evaluation(tested, workdirs[0])
    _warn(tested.unreadable)  # those of this process
    if not is_chief():
        return
    if path is not None:
        draw_evaluation(tested, workdirs[0])
    _warn(tested.warnings)
    found = tested.result
    if values.json:
        print(json.dumps(to_json(found)))
        return
    top5 = "" if found.top5_error is None else f", top-5 {found.top5_error:.2f} %"
    net = found.models[0] if len(found.models) == 1 else f"{len(found.models)} nets"
    print(
        f"{net} on {found.examples} {found.evaluated_on} images of {found.dataset}{_grey(found.unreadable)}: "
        f"{found.protocol.replace('_', ' ')} error {found.test_error:.2f} %{top5}, loss {found.test_loss:.4f}, "
        f"calibration error {found.ece:.2f} %" + ("" if path is None else f"; written to {path}")
    )


def _grey(count: int) -> str:
    return f" ({count} of them unreadable and shown grey)" if count else ""


def _warn(sentences: Sequence[str]) -> None:
    for sentence in sentences:
        print(printable(f"warning: {sentence}"), file=sys.stderr)
