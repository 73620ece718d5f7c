"""`fit` and `fit_seeds`: from a config and a folder to a finished run, or to several that differ in their seed."""

import contextlib
import dataclasses
import time
from collections.abc import Collection, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import jax
from ml_collections import ConfigDict

from resnet_jax.config import differing_fields, flatten, validate_config
from resnet_jax.errors import Stopped, UserError, unknown_name
from resnet_jax.training.checkpoint import Checkpoints
from resnet_jax.training.distributed import agreed, is_chief, process_loss_told, together
from resnet_jax.training.facts import FACTS, facts_of, facts_to_json
from resnet_jax.training.mesh import check_batch, make_mesh
from resnet_jax.training.progress import NoProgress, ProgressDisplay, Turn
from resnet_jax.training.record import CHECKPOINTS, OthersRecord, Result, RunRecord
from resnet_jax.training.run import Run
from resnet_jax.training.start import resolve_in
from resnet_jax.training.stepper import Dispatch, Programs
from resnet_jax.training.stop import StopRequest
from resnet_jax.training.trainer import Trainer, make_trainer


def fit(
    config: ConfigDict,
    workdir: str | Path,
    progress: ProgressDisplay | None = None,
    devices: Sequence[jax.Device] | None = None,
    force: Collection[str] = (),
) -> Result:
    """Trains a net as the config says and records the run in `workdir`.

    A finished run is only read; an unfinished one goes on from its newest checkpoint. Several processes (see
    `distributed.initialize`) call it alike, with a `workdir` that all of them see; process 0 writes the record.

    Args:
      config: the fields of `config.base_config`.
      workdir: the run's folder, made if needed.
      progress: what to show meanwhile; nothing by default.
      devices: devices to train on, all by default.
      force: fields in which the config may differ from that of the run in `workdir`, which then goes on with it.

    Returns:
      The result, as in `result.json`.

    Raises:
      UserError: for a config that cannot be run, a folder that holds another run or cannot be written to or is in
        use, and for a loss that is not finite or jumps.
      Stopped: after SIGTERM or SIGINT, with the state saved; as `ProcessLost` if another process is gone.
    """
    (result,) = fit_seeds([config], [workdir], progress, devices, force)
    return result


def fit_seeds(
    configs: Sequence[ConfigDict],
    workdirs: Sequence[str | Path],
    progress: ProgressDisplay | None = None,
    devices: Sequence[jax.Device] | None = None,
    force: Collection[str] = (),
    packing: str | None = None,
) -> list[Result]:
    """Trains several runs that differ in their seed alone in one program: together in less time than one by one.

    Each is recorded in its own folder as `fit` would, and either function goes on with what the other began. A run that
    fails does not end the others.

    Args:
      configs: of the runs.
      workdirs: their folders.
      progress, devices, force: see `fit`.
      packing: how the runs share the program, see `step.make_packed_step`.

    Returns:
      Their results, in the order of the configs.

    Raises:
      UserError: see `fit`; for configs that differ in more than the seed, and what several runs cannot have. One that
        is about a single run's training is raised when the others are finished.
      Stopped: see `fit`.
    """
    began = time.monotonic()
    _check(configs, workdirs, force)
    progress = progress or NoProgress()
    records = [RunRecord(workdir) if is_chief() else OthersRecord(workdir) for workdir in workdirs]
    with process_loss_told(records[0].workdir), contextlib.ExitStack() as stack:
        results: dict[Path, Result] = {}
        todo: list[tuple[RunRecord, ConfigDict]] = []
        weights = None
        for record, config in zip(records, configs, strict=True):
            config, weights = resolve_in(record, config, force)
            if (finished := agreed(partial(_finished, record, config, force))) is not None:
                results[record.workdir] = Result(**finished)
            else:
                todo.append((record, config))
        if todo:
            check_batch(make_mesh(devices), configs[0].batch_size, configs[0].accumulate)
            trainer = together(lambda: make_trainer(todo[0][1], devices, weights))
            programs = Programs(trainer, lambda: progress.status("compiling"), packing)
            stop = stack.enter_context(StopRequest())
            runs = []
            for record, config in todo:
                mine = trainer.with_config(config) if len(todo) > 1 else trainer
                checkpoints = stack.enter_context(_folder(record, mine))
                shown = Turn(progress) if len(todo) > 1 else progress
                runs.append(Run(mine, record, checkpoints, shown, stop, programs, began, len(todo)))
            results |= _train(runs, programs)
    return [results[record.workdir] for record in records]


def _check(configs: Sequence[ConfigDict], workdirs: Sequence[str | Path], force: Collection[str]) -> None:
    """Raises UserError for what cannot be run, or not together."""
    for name in force:
        if name not in flatten(configs[0]):
            raise unknown_name("config field", name, flatten(configs[0]))
    for config in configs:
        validate_config(config)
        if differing := differing_fields(configs[0], config).keys() - {"seed"}:
            raise UserError(f"runs in one program differ in their seed alone, not in {', '.join(sorted(differing))}")
    if len({Path(workdir).expanduser().absolute() for workdir in workdirs}) < len(configs):
        raise UserError("several runs cannot share a folder: each needs a seed of its own")
    if len(configs) > 1 and jax.process_count() > 1:
        raise UserError("several seeds at once are for one process: with several, start a run for each seed")
    if len(configs) > 1 and configs[0].profile_steps:
        raise UserError("config.profile_steps traces one run: leave it out with several seeds at once")


@contextlib.contextmanager
def _folder(record: RunRecord, trainer: Trainer) -> Iterator[Checkpoints]:
    """The run's folder, taken, and its checkpoints, closed at the end unless `_end` has done it."""
    try:
        agreed(lambda: record.begin(trainer.config))
        agreed(lambda: record.describe(FACTS, facts_to_json(facts_of(trainer))))
        checkpoints = Checkpoints(record.workdir / CHECKPOINTS, trainer.config.keep_checkpoints)
        try:
            yield checkpoints
        except BaseException as error:
            # Of several processes, one that fails alone must not wait for the others, who wait for it.
            if jax.process_count() == 1 or isinstance(error, UserError | Stopped):
                with contextlib.suppress(UserError):  # the first error says more than that of a checkpoint behind it
                    checkpoints.close()
            raise
        checkpoints.close()
    finally:
        record.close()


def _train(runs: Sequence[Run], programs: Programs) -> dict[Path, Result]:
    """All runs to their end, by folder; what went wrong with some is raised when the others are done."""
    results: dict[Path, Result] = {}
    failed: list[tuple[Run, UserError | Stopped]] = []
    for run, outcome in drive(runs, programs):
        if isinstance(outcome, Result):
            try:
                run.checkpoints.wait()
                agreed(partial(run.record.finish, outcome))
                results[run.record.workdir] = outcome
                continue
            except UserError as error:
                outcome = error
        failed.append((run, outcome))
        if len(runs) > 1 and isinstance(outcome, UserError):
            run.progress.note(f"failed: {outcome}")
    if len(runs) == 1 and failed:
        raise failed[0][1]
    stopped = [outcome for _, outcome in failed if isinstance(outcome, Stopped)]
    if stopped:
        raise Stopped(f"{stopped[0]}; {len(stopped)} of {len(runs)} seeds at once were stopped so")
    if failed:
        raise UserError("; ".join(f"{run.record.workdir.name}: {outcome}" for run, outcome in failed))
    return results


def drive(runs: Sequence[Run], programs: Programs) -> Iterator[tuple[Run, Result | UserError | Stopped]]:
    """Computes the steps that runs ask for, those of like shapes in one program.

    Args:
      runs: that share the programs; they may be at different steps.
      programs: of their net.

    Yields:
      Each run with its result or its error, as soon as it ends.
    """
    going = {run: run.steps() for run in runs}
    answers: dict[Run, Any] = dict.fromkeys(runs)
    while going:
        asked: dict[Run, Dispatch] = {}
        for run, steps in list(going.items()):
            try:
                asked[run] = steps.send(answers[run])
            except (StopIteration, UserError, Stopped) as end:
                del going[run]
                yield run, end.value if isinstance(end, StopIteration) else end
        alike: dict[Any, list[Run]] = {}
        for run, dispatch in asked.items():
            alike.setdefault(dispatch.shapes, []).append(run)
        for group in alike.values():
            answers |= zip(group, programs.run([asked[run] for run in group]), strict=True)


def _finished(record: RunRecord, config: ConfigDict, force: Collection[str]) -> dict | None:
    """The result of a finished run of this config, as a dict."""
    if not record.is_same(config, force) or (result := record.result()) is None:
        return None
    return dataclasses.asdict(result)
