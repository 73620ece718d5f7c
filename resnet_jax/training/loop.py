"""The training loop: restore, step, log, evaluate, save, stop."""

import contextlib
import time
from collections.abc import Collection, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import jax
from flax import linen as nn
from ml_collections import ConfigDict

from resnet_jax.config import flatten
from resnet_jax.errors import Stopped, UserError, unknown_name
from resnet_jax.tasks.task import Task
from resnet_jax.training.checkpoint import Checkpoints
from resnet_jax.training.computation import FIXED
from resnet_jax.training.config_checks import validate_config
from resnet_jax.training.distributed import agreed, check_batch, explain_lost_process, make_mesh, together
from resnet_jax.training.init_from import load_proposer, resolve
from resnet_jax.training.progress import ProgressDisplay
from resnet_jax.training.result import Result
from resnet_jax.training.run import Run
from resnet_jax.training.run_folder import RunFolder
from resnet_jax.training.run_record import CHECKPOINTS
from resnet_jax.training.shutdown import tell
from resnet_jax.training.stepper import Stepper, Trace, steps_to_dispatch
from resnet_jax.training.stopping import Diverged, StopRequest
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
    `distributed.initialize`) call it alike, with a `workdir` that all of them see; process 0 writes the record.

    Args:
      config: the fields of `config.base_config`.
      workdir: the run's folder, made if needed.
      progress: what to show meanwhile; nothing by default.
      devices: devices to train on, all by default.
      force: fields in which the config may differ from that of the run in `workdir`, which then goes on with it; also
        "layers" and "jaxlib", see `computation.go_on`.
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
        if name not in flatten(config) and name not in FIXED:
            raise unknown_name("config field", name, flatten(config))
    progress = progress or ProgressDisplay()
    folder = RunFolder(workdir)
    with explain_lost_process(folder.workdir):
        config, weights = resolve(config, folder, force)
        if (finished := agreed(partial(_finished_result, folder, config, force))) is not None:
            return Result.from_json(finished)
        check_batch(make_mesh(devices), config.batch_size, config.accumulate)
        proposer = load_proposer(config)  # which all processes read at once; what follows they do in turn
        trainer = together(lambda: make_trainer(config, devices, weights, task, model, proposer))
        with StopRequest() as stop, _opened(folder, trainer, force) as checkpoints:
            result = train(Run(trainer, folder, checkpoints, progress, began, force), stop)
        # Only now: a signal may end the process again, and the last checkpoint is on disk.
        agreed(partial(folder.finish, result))
        return result


def train(run: Run, stop: StopRequest) -> Result:
    """Trains from the newest checkpoint to the end, or until the run stops.

    Raises:
      UserError: for a loss that is not finite or jumps, and for a record that cannot be written.
      Stopped: when `stop` asks for it, with the state saved.
    """
    config, progress = run.trainer.config, run.progress
    damage = run.restore()
    progress.start(f"{config.model.name} seed {config.seed}", run.step, config.steps, run.trainer.task.shown)
    for note in (*damage, *run.trainer.notes()):
        progress.note(note)
    trace = Trace(config.profile_steps, run.folder.workdir / "profile")
    with Stepper(run.trainer, lambda: progress.status("compiling"), trace) as stepper:
        while run.step < config.steps and not run.early_stopping.over:
            count = steps_to_dispatch(config, run.trainer.mesh, run.trainer.pipeline, run.step)
            run.state = stepper.advance(run.state, run.step, count, run.skipped.numbers)
            run.step += count
            log, evaluate, save = (
                run.step % every == 0 or run.step == config.steps
                for every in (config.log_every, config.eval_every, config.checkpoint_every)
            )
            stop_now = stop.reached() and run.step < config.steps
            # One dispatch stays under way while the next is prepared, but nothing is written ahead of its metrics.
            wait = log or evaluate or save or stop_now
            try:
                run.take_in(stepper, leave=0 if wait else 1)
            except Diverged as diverged:
                stepper.drop()
                run.go_back(diverged)
                continue
            if log:
                run.log(stepper)
                save = save or run.is_time_to_save()
            if evaluate:
                run.evaluate()
            # With early stopping the best weights so far may be those that the run ends with.
            if save or stop_now or run.is_best:
                run.save()
            if stop_now:
                raise run.stopped(stop)
    return run.result()


@contextlib.contextmanager
def _opened(folder: RunFolder, trainer: Trainer, force: Collection[str]) -> Iterator[Checkpoints]:
    """Locks a run's folder and opens its checkpoints, and closes both however the run ends."""
    try:
        agreed(lambda: folder.open(trainer.config))
        agreed(lambda: folder.write_dataset_info(trainer.dataset_info(), force))
        task = trainer.task
        checkpoints = Checkpoints(folder.workdir / CHECKPOINTS, trainer.config.keep_checkpoints, task.lower_is_better)
        try:
            yield checkpoints
        except BaseException as error:
            if isinstance(error, UserError):
                tell(str(error))  # now: closing the checkpoints may take the others
            # Of several processes, one that fails alone must not wait for the others, who wait for it.
            if jax.process_count() == 1 or isinstance(error, UserError | Stopped):
                with contextlib.suppress(UserError):  # the first error says more than that of a checkpoint behind it
                    checkpoints.close()
            raise
        checkpoints.close()
    except BaseException:
        folder.close()
        raise


def _finished_result(folder: RunFolder, config: ConfigDict, force: Collection[str]) -> dict[str, Any] | None:
    """Returns the result of a finished run of this config as JSON."""
    if not folder.holds(config, force) or (result := folder.result()) is None:
        return None
    return result.to_json()
