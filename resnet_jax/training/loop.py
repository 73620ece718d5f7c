"""`fit` and `fit_seeds`: from a config and a folder to a finished run, or to several that differ in their seed."""

import contextlib
import dataclasses
import time
from collections.abc import Collection, Generator, Sequence
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
from resnet_jax.training.step import PACKINGS
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
    fails, or whose folder cannot be used, does not end the others.

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
    _check(configs, workdirs, force, packing)
    progress = progress or NoProgress()
    records = [RunRecord(workdir) if is_chief() else OthersRecord(workdir) for workdir in workdirs]
    with process_loss_told(records[0].workdir):
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
            results |= _train_all(todo, trainer, programs, progress, began)
    return [results[record.workdir] for record in records]


def _check(configs: Sequence[ConfigDict], workdirs: Sequence[str | Path], force: Collection[str],
           packing: str | None) -> None:  # fmt: skip
    """Raises UserError for what cannot be run, or not together."""
    if not configs or len(configs) != len(workdirs):
        raise UserError(f"{len(configs)} configs and {len(workdirs)} folders: each run needs one of both")
    if packing not in (None, *PACKINGS):
        raise unknown_name("packing", packing, PACKINGS)
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


def _train_all(
    todo: Sequence[tuple[RunRecord, ConfigDict]], trainer: Trainer, programs: Programs, progress: ProgressDisplay,
    began: float,
) -> dict[Path, Result]:  # fmt: skip
    """The results of runs that are not finished, by folder; what went wrong with some is raised behind the others' end.

    A run that is alone is closed when signals have their usual effect again: its state is saved by then.
    """
    several = len(todo) > 1
    opened: list[Run] = []
    results: dict[Path, Result] = {}
    failed: dict[Path, UserError | Stopped] = {}

    def fail(workdir: Path, error: UserError | Stopped, shown: ProgressDisplay) -> None:
        failed[workdir] = error
        if several and isinstance(error, UserError):
            shown.note(f"{workdir.name} failed: {error}")

    def close(run: Run, outcome: Result | UserError | Stopped) -> None:
        opened.remove(run)
        try:
            _close(run, outcome)
        except UserError as error:
            outcome = error
        if isinstance(outcome, Result):
            results[run.record.workdir] = outcome
        else:
            fail(run.record.workdir, outcome, run.progress)

    last: tuple[Run, Result | UserError | Stopped] | None = None
    try:
        with StopRequest() as stop:
            for record, config in todo:
                mine = trainer.with_config(config) if several else trainer
                shown = Turn(progress) if several else progress
                try:
                    opened.append(_open(record, mine, shown, stop, programs, began, len(todo)))
                except UserError as error:
                    fail(record.workdir, error, progress)
            with contextlib.closing(drive(opened, programs)) as ends:
                for run, outcome in ends:
                    if len(opened) > 1:
                        close(run, outcome)
                    else:
                        last = run, outcome
        if last is not None:
            close(*last)
    except BaseException as error:
        for run in opened:
            with contextlib.suppress(UserError):
                _close(run, error)
        raise
    if failed:
        raise _joined(failed, len(todo))
    return results


def _joined(failed: dict[Path, UserError | Stopped], count: int) -> UserError | Stopped:
    """One error of those of several runs: of `count`, which differ in their seeds."""
    if count == 1:
        return next(iter(failed.values()))
    wrong = "; ".join(f"{path.name}: {error}" for path, error in failed.items() if isinstance(error, UserError))
    stopped = [error for error in failed.values() if isinstance(error, Stopped)]
    if not stopped:
        return UserError(wrong)
    return Stopped(f"{stopped[0]}; {len(stopped)} of {count} seeds at once were stopped so{wrong and f'; {wrong}'}")


def _open(
    record: RunRecord, trainer: Trainer, progress: ProgressDisplay, stop: StopRequest, programs: Programs,
    began: float, runs_at_once: int,
) -> Run:  # fmt: skip
    """Takes a run's folder, and the newest checkpoint in it."""
    try:
        agreed(lambda: record.begin(trainer.config))
        agreed(lambda: record.describe(FACTS, facts_to_json(facts_of(trainer))))
        checkpoints = Checkpoints(record.workdir / CHECKPOINTS, trainer.config.keep_checkpoints)
        try:
            return Run(trainer, record, checkpoints, progress, stop, programs, began, runs_at_once)
        except BaseException as error:
            _abandon(checkpoints, error)
            raise
    except BaseException:
        record.close()
        raise


def _close(run: Run, outcome: Result | BaseException) -> None:
    """Lets go of a run's folder, when its result is written if it has one.

    Raises:
      UserError: if the last checkpoint or the result cannot be written.
    """
    try:
        if isinstance(outcome, Result):
            run.checkpoints.close()
            agreed(partial(run.record.finish, outcome))
        else:
            _abandon(run.checkpoints, outcome)
    finally:
        run.record.close()


def _abandon(checkpoints: Checkpoints, error: BaseException) -> None:
    # Of several processes, one that fails alone must not wait for the others, who wait for it.
    if jax.process_count() == 1 or isinstance(error, UserError | Stopped):
        with contextlib.suppress(UserError):  # the first error says more than that of a checkpoint behind it
            checkpoints.close()


def drive(runs: Sequence[Run], programs: Programs) -> Generator[tuple[Run, Result | UserError | Stopped], None, None]:
    """Computes the steps that runs ask for, those of like shapes in one program.

    Args:
      runs: that share the programs; they may be at different steps.
      programs: of their net.

    Yields:
      Each run with its result or its error, as soon as it ends.
    """
    going = {run: run.steps() for run in runs}
    try:
        while going:
            alike: dict[Any, list[Dispatch]] = {}
            ended: list[tuple[Run, Result | UserError | Stopped]] = []
            for run, steps in going.items():
                try:
                    dispatch = next(steps)
                    alike.setdefault(dispatch.shapes, []).append(dispatch)
                except (StopIteration, UserError, Stopped) as end:
                    ended.append((run, end.value if isinstance(end, StopIteration) else end))
            for run, outcome in ended:
                del going[run]
                yield run, outcome
            for group in alike.values():
                programs.run(group)
    finally:
        for steps in going.values():  # ends a profiler's trace
            steps.close()


def _finished(record: RunRecord, config: ConfigDict, force: Collection[str]) -> dict | None:
    """The result of a finished run of this config, as a dict."""
    if not record.is_same(config, force) or (result := record.result()) is None:
        return None
    return dataclasses.asdict(result)
