"""The training loop: restore, step, log, evaluate, save, stop."""

import contextlib
import math
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import jax
import numpy as np
from flax import linen as nn
from ml_collections import ConfigDict

from resnet_jax.config import flatten
from resnet_jax.errors import Stopped, UserError, unknown_name
from resnet_jax.tasks.task import Task
from resnet_jax.training import provenance
from resnet_jax.training.checkpoint import Checkpoints, Restored
from resnet_jax.training.config_checks import validate_config
from resnet_jax.training.guards import MAX_ROLLBACKS, Diverged, EarlyStopping, LossGuard, SkippedBatches, StopRequest
from resnet_jax.training.init_from import resolve_in
from resnet_jax.training.mesh import check_batch, make_mesh, replicated
from resnet_jax.training.multihost import agreed, explain_lost_process, is_chief, together
from resnet_jax.training.profiling import memory, profiled
from resnet_jax.training.progress import NoProgress, ProgressDisplay
from resnet_jax.training.result import Result, make_result
from resnet_jax.training.run_folder import CHECKPOINTS, ReadOnlyRunFolder, RunFolder
from resnet_jax.training.state import TrainState
from resnet_jax.training.stepper import Stepper, steps_to_dispatch
from resnet_jax.training.trainer import Trainer, make_trainer


def fit(
    config: ConfigDict,
    workdir: str | Path,
    progress: ProgressDisplay | None = None,
    devices: Sequence[jax.Device] | None = None,
    force: Collection[str] = (),
    task: Task | None = None,
    model: nn.Module | None = None,
) -> Result:
    """Trains a net as the config says and records the run in `workdir`.

    A finished run is only read; an unfinished one goes on from its newest checkpoint. Several processes (see
    `multihost.initialize`) call it alike, with a `workdir` that all of them see; process 0 writes the record.

    Args:
      config: the fields of `config.base_config`.
      workdir: the run's folder, made if needed.
      progress: what to show meanwhile; nothing by default.
      devices: devices to train on, all by default.
      force: fields in which the config may differ from that of the run in `workdir`, which then goes on with it.
      task, model: what is trained for, and a net of the user's own; see `trainer.make_trainer`.

    Returns:
      The result, as in `result.json`.

    Raises:
      UserError: for a config that cannot be run, a folder that holds another run or cannot be written to or is in
        use, and for a loss that is not finite or jumps.
      Stopped: after SIGTERM or SIGINT, with the state saved; as `ProcessLost` if another process is gone.
    """
    began = time.monotonic()
    validate_config(config)
    for name in force:
        if name not in flatten(config):
            raise unknown_name("config field", name, flatten(config))
    progress = progress or NoProgress()
    folder = RunFolder(workdir) if is_chief() else ReadOnlyRunFolder(workdir)
    with explain_lost_process(folder.workdir):
        config, weights = resolve_in(folder, config, force)
        if (finished := agreed(partial(_finished_result, folder, config, force))) is not None:
            return Result.from_json(finished)
        check_batch(make_mesh(devices), config.batch_size, config.accumulate)
        trainer = together(lambda: make_trainer(config, devices, weights, task, model))
        with StopRequest() as stop, _opened(folder, trainer) as checkpoints:
            result = train(trainer, folder, checkpoints, progress, stop, began)
        # Only now: a signal may end the process again, and the last checkpoint is on disk.
        agreed(partial(folder.finish, result))
        return result


def train(
    trainer: Trainer, folder: RunFolder, checkpoints: Checkpoints, progress: ProgressDisplay, stop: StopRequest,
    began: float,
) -> Result:  # fmt: skip
    """Trains from the newest checkpoint to the end, or until the run stops.

    Args:
      trainer: the parts of the run.
      folder, checkpoints: its record.
      progress: what to show.
      stop: tells whether to stop.
      began: of `time.monotonic`, when the run began.

    Returns:
      The result.

    Raises:
      UserError: for a loss that is not finite or jumps, and for a record that cannot be written.
      Stopped: when asked to, with the state saved.
    """
    config, task = trainer.config, trainer.task
    commit = provenance.commit()  # now: a long run may see later commits
    stepper = Stepper(trainer, lambda: progress.status("compiling"))
    skipped = SkippedBatches(agreed(folder.skipped_batches))

    state, restored = _restore(trainer, checkpoints)
    step, pending, guard = int(state.step), _pending(restored), _loss_guard(trainer, restored)
    earlier_seconds = restored.host["seconds"] if restored else 0.0
    agreed(lambda: folder.replace_config(config))
    stopping = _truncate(trainer, folder, step)

    progress.start(f"{config.model.name} seed {config.seed}", step, config.steps, task.shown)
    for note in (*_damage(restored, step), *trainer.notes()):
        progress.note(note)
    saved = time.monotonic()
    with profiled(config.profile_steps, folder.workdir / "profile") as trace:
        dispatches = 0
        while step < config.steps and not stopping.over:
            count = steps_to_dispatch(trainer, step)
            trace.start(step, count)
            state = stepper.advance(state, step, count, skipped.numbers)
            step, dispatches = step + count, dispatches + 1

            log, evaluate, save = (
                step % every == 0 or step == config.steps
                for every in (config.log_every, config.eval_every, config.checkpoint_every)
            )
            stop_now = stop.reached(dispatches) and step < config.steps
            # One dispatch stays under way while the next is prepared, but nothing is written ahead of its metrics.
            wait = log or evaluate or save or stop_now or trace.ends(step)
            try:
                for done, metrics in stepper.collect(leave=0 if wait else 1):
                    guard.check(done, metrics)
                    pending.append(metrics)
                    progress.update(done, {"loss": metrics["loss"], **stepper.timing()}, line=False)
            except Diverged as diverged:
                what = f"{diverged} at step {diverged.step}"
                if config.on_nan != "rollback" or len(skipped.records) >= MAX_ROLLBACKS:
                    raise _diverged(what, skipped, checkpoints, folder) from diverged
                checkpoints.wait()
                stepper.drop()
                state, restored = _restore(trainer, checkpoints)
                step, pending, guard = int(state.step), _pending(restored), _loss_guard(trainer, restored)
                saved = time.monotonic()
                batch = skipped.add(diverged, went_back_to=step)
                stopping = _truncate(trainer, folder, step)
                agreed(lambda: folder.write_skipped(skipped.records))
                progress.note(f"{what}; going back to step {step} and leaving out batch {batch}")
                for note in _damage(restored, step):
                    progress.note(note)
                continue
            if trace.ends(step):
                trace.stop()

            evaluated: dict[str, float] = {}
            if log:
                for warning in trainer.pipeline.warnings():
                    progress.note(warning)
                line = _training_line(task, pending) | stepper.timing() | memory(list(trainer.mesh.devices.flat))
                agreed(partial(folder.append, step, line))
                progress.update(step, line, line=True)
                pending = []
                stepper.reset_timing()
                # By the clock of process 0, so that all save together.
                if config.checkpoint_minutes and not save:
                    save = agreed(partial(_is_over, saved + 60 * config.checkpoint_minutes))
            if evaluate:
                evaluated = trainer.evaluate(state)
                for name, value in evaluated.items():
                    if not math.isfinite(value):
                        name = name.replace("_", " ")
                        raise _diverged(f"the {name} became {value} at step {step}", skipped, checkpoints, folder)
                agreed(partial(folder.append, step, evaluated))
                progress.update(step, evaluated, line=True)
                # With early stopping the best weights so far may be those that the run ends with.
                save |= stopping.update(step, evaluated) and bool(stopping.patience)
            if save or stop_now:
                # The lines ahead of a checkpoint must be as safe as it: a power loss must not take them alone.
                agreed(folder.sync)
                seconds = earlier_seconds + time.monotonic() - began
                host = {"pending": pending, "seconds": seconds, "loss_average": guard.average}
                # With early stopping, the first of several equal evaluations must stay the best.
                is_best = not stopping.patience or step == stopping.best_step
                checkpoints.save(step, state, host, evaluated if is_best else {})
                saved = time.monotonic()
            if stop_now:
                checkpoints.wait()  # before it is said to be saved
                reason = stop.signal.name if stop.signal else "asked to stop"
                raise Stopped(
                    f"{reason} after step {step} of {config.steps}; the state is saved in {folder.workdir}, and the "
                    "same command goes on from there"
                )
    kept = step
    if stopping.patience and stopping.best_step is not None:
        kept = stopping.best_step
        checkpoints.drop_after(kept)
    seconds = earlier_seconds + time.monotonic() - began
    return make_result(trainer, agreed(folder.lines), commit, seconds, len(skipped.records), step, kept)


@contextlib.contextmanager
def _opened(folder: RunFolder, trainer: Trainer) -> Iterator[Checkpoints]:
    """Locks a run's folder and opens its checkpoints, and closes both however the run ends."""
    try:
        agreed(lambda: folder.open(trainer.config))
        agreed(lambda: folder.write_dataset_info(trainer.dataset_info()))
        task = trainer.task
        checkpoints = Checkpoints(
            folder.workdir / CHECKPOINTS, trainer.config.keep_checkpoints, task.best_metric, task.lower_is_better
        )
        try:
            yield checkpoints
        except BaseException as error:
            # Of several processes, one that fails alone must not wait for the others, who wait for it.
            if jax.process_count() == 1 or isinstance(error, UserError | Stopped):
                with contextlib.suppress(UserError):  # the first error says more than that of a checkpoint behind it
                    checkpoints.close()
            raise
        checkpoints.close()
    except BaseException:
        folder.close()
        raise


def _is_over(end: float) -> bool:
    return time.monotonic() >= end


def _restore(trainer: Trainer, checkpoints: Checkpoints) -> tuple[TrainState, Restored | None]:
    """Returns the state of the newest checkpoint with what the host saved beside it, or the state before step 1."""
    like = trainer.random_init()
    restored = checkpoints.restore(like, replicated(trainer.mesh))
    if restored is not None:
        return restored.state, restored
    return trainer.init(like), None


def _pending(restored: Restored | None) -> list[dict[str, float]]:
    """Returns the metrics of the steps since the last training line."""
    return list(restored.host["pending"]) if restored else []


def _loss_guard(trainer: Trainer, restored: Restored | None) -> LossGuard:
    average = restored.host.get("loss_average") if restored else None
    return LossGuard(trainer.task.chance_loss, trainer.config.loss_jump, average)


def _truncate(trainer: Trainer, folder: RunFolder, step: int) -> EarlyStopping:
    """Drops the lines past the step, and returns what is left of their evaluations."""
    agreed(lambda: folder.truncate(step))
    return EarlyStopping.from_lines(trainer.task, trainer.config.early_stopping.patience, agreed(folder.lines))


def _damage(restored: Restored | None, step: int) -> list[str]:
    damaged = restored.damaged if restored else ()
    return [f"{sentence}; it was moved aside, and training goes on from step {step}" for sentence in damaged]


def _training_line(task: Task, pending: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Returns the mean of the metrics over the steps since the last line."""
    means = {name: float(np.mean([metrics[name] for metrics in pending])) for name in pending[0]}
    general = ("loss", "learning_rate", "gradient_norm", "update_norm")
    of_task = task.train_metrics({name: value for name, value in means.items() if name not in general})
    return {
        "loss": means["loss"],
        **of_task,
        "learning_rate": pending[-1]["learning_rate"],
        "gradient_norm": means["gradient_norm"],
        "update_norm": means["update_norm"],
    }


def _diverged(what: str, skipped: SkippedBatches, checkpoints: Checkpoints, folder: RunFolder) -> UserError:
    """Returns the error that ends a run that diverged; `what` says what happened, at which step."""
    steps = checkpoints.steps()
    last = f"the last good checkpoint is that of step {steps[-1]}" if steps else "there was no checkpoint yet"
    tried = f" after {len(skipped.records)} batches were left out" if skipped.records else ""
    return UserError(
        f"{what}{tried}; {last}, and the record is kept, in {folder.workdir}. A lower config.optimizer.learning_rate "
        "or a config.schedule.warmup may help, with a new workdir; config.on_nan=rollback leaves out such batches"
    )


def _finished_result(folder: RunFolder, config: ConfigDict, force: Collection[str]) -> dict[str, Any] | None:
    """Returns the result of a finished run of this config as JSON."""
    if not folder.holds(config, force) or (result := folder.result()) is None:
        return None
    return result.to_json()
