"""Checkpoints of a run through Orbax: the state on the devices, and what the host carries beside it."""

import copy
import dataclasses
import shutil
import zlib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
from jax.sharding import NamedSharding
from orbax.checkpoint.checkpoint_managers import preservation_policy as policies

from resnet_jax.errors import UserError
from resnet_jax.training import packing
from resnet_jax.training.distributed import agreed, all_agree, is_chief, wait_for_all
from resnet_jax.training.state import TrainState


@dataclasses.dataclass(frozen=True)
class Restored:
    """A checkpoint that was read back.

    Attributes:
      state: the state, as it was saved.
      host: the dict that the host saved beside it.
      damaged: a sentence for each newer checkpoint that could not be read.
    """

    state: TrainState
    host: dict[str, Any]
    damaged: tuple[str, ...]


class Checkpoints:
    """The checkpoints of one run, by step.

    Written in the background, each into a folder that gets its name when it is whole: a kill leaves a checkpoint or
    none. The newest `keep` stay, and the best by test error. Several processes open the same folder, which all of them
    must see, and call every method together.
    """

    def __init__(self, directory: Path, keep: int, read_only: bool = False) -> None:
        """Opens `directory`, which is made when needed; with `read_only`, nothing in it is ever changed."""
        self._directory, self._read_only = directory.absolute(), read_only
        best = policies.BestN(
            get_metric_fn=lambda metrics: -metrics["test_error"], n=1, keep_checkpoints_without_metrics=False
        )
        options = ocp.CheckpointManagerOptions(
            preservation_policy=policies.AnyPreservationPolicy([policies.LatestN(keep), best]),
            enable_async_checkpointing=not read_only,
            read_only=read_only,
        )
        self._manager = ocp.CheckpointManager(self._directory, options=options)

    def steps(self) -> list[int]:
        """Steps of the checkpoints that there are, ascending."""
        return sorted(self._manager.all_steps())

    def save(self, step: int, state: TrainState, host: dict[str, Any], test_error: float | None = None) -> None:
        """Saves the state after `step` steps, unless that is saved already.

        Args:
          step: steps done.
          state: the state; it is copied before this returns.
          host: a JSON-like dict of the host's own.
          test_error: the error that was measured at this step, if it was.

        Raises:
          UserError: if this or the last checkpoint could not be written, as on a full disk.
        """
        if step in self._manager.all_steps():
            return
        sums = {"checksum": checksum(state), "layout": packing.layout(state)}
        items = ocp.args.Composite(
            state=ocp.args.StandardSave(packing.pack(state)),
            # Orbax and TensorStore do not notice every flipped bit; the sum of what was meant to be written does.
            # Copied: it is written in the background, while the run goes on to change its lists.
            host=ocp.args.JsonSave(copy.deepcopy(host) | sums),
        )
        metrics = None if test_error is None else {"test_error": test_error}
        try:
            self._manager.save(step, args=items, metrics=metrics)
        except (OSError, ValueError, RuntimeError) as error:
            raise self._failed(error) from error

    def restore(self, like: TrainState, sharding: NamedSharding) -> Restored | None:
        """The newest checkpoint that is whole, or None where there is none at all.

        Newer ones that are damaged are moved aside, to `damaged-STEP`, so that the run can save their steps again
        (unless this is read-only).

        Args:
          like: a state, or its abstract shapes, of the structure that was saved.
          sharding: where each array goes; it need not be where it came from.

        Raises:
          UserError: if there are checkpoints but none that can be read into a state like this; nothing is moved then.
        """
        damaged: dict[int, str] = {}
        for step in reversed(agreed(self.steps)):
            why = "another process cannot read it"
            found = None
            try:
                found = self._read(step, like, sharding)
            except Exception as error:  # each layer of Orbax and TensorStore has its own types for damage
                why = _line(error)
            if not all_agree(found is not None) or found is None:
                damaged[step] = f"checkpoint {step} cannot be read ({why})"
                continue
            if damaged and not self._read_only:
                self._move_aside(damaged)
            return Restored(*found, tuple(damaged.values()))
        if damaged:
            raise UserError(
                f"no checkpoint in {self._directory} can be used: {'; '.join(damaged.values())}; "
                "move the folder away to train anew"
            )
        return None

    def _move_aside(self, steps: Iterable[int]) -> None:
        if is_chief():
            for step in steps:
                (self._directory / str(step)).rename(self._directory / f"damaged-{step}")
        wait_for_all("damaged checkpoints moved")
        self._manager.reload()

    def drop_after(self, step: int) -> None:
        """Removes the checkpoints behind that of a step.

        Raises:
          UserError: if there is none of that step, as after damage.
        """
        self.wait()
        if step not in self._manager.all_steps():
            raise UserError(
                f"{self._directory} no longer holds the checkpoint of step {step}, which had the lowest error"
            )
        for later in [s for s in self._manager.all_steps() if s > step]:
            self._manager.delete(later)

    def wait(self) -> None:
        """Waits until everything is on disk.

        Raises:
          UserError: if the last checkpoint could not be written.
        """
        try:
            self._manager.wait_until_finished()
        except (OSError, ValueError, RuntimeError) as error:
            raise self._failed(error) from error

    def _read(self, step: int, like: TrainState, sharding: NamedSharding) -> tuple[TrainState, dict[str, Any]]:
        arrays = ocp.args.StandardRestore(packing.abstract(like, sharding))
        restored = self._manager.restore(step, args=ocp.args.Composite(state=arrays, host=ocp.args.JsonRestore()))
        host = dict(restored.host)
        if packing.layout(like) != host.pop("layout"):
            raise ValueError("its arrays are those of another net or optimiser")
        state = packing.unpack(restored.state, like, sharding)
        if checksum(state) != host.pop("checksum"):
            raise ValueError("its checksum does not match")
        return state, host

    def close(self) -> None:
        """Waits as `wait` does, and lets go of the folder."""
        try:
            self.wait()
        finally:
            try:
                self._manager.close()
            except (OSError, ValueError, RuntimeError) as error:  # it can meet the full disk once more
                raise self._failed(error) from error

    def _failed(self, error: Exception) -> Exception:
        if jax.process_count() > 1 and isinstance(error, jax.errors.JaxRuntimeError):
            return error  # a process is gone, which `fit` says
        whole = ", ".join(str(step) for step in self.steps()) or "none"
        full = shutil.disk_usage(self._directory).free < 2**20
        return UserError(
            f"cannot write a checkpoint to {self._directory}: {'the disk is full' if full else _line(error)}; whole "
            f"checkpoints there: {whole}. With that mended, the same command goes on from the newest"
        )


def checksum(state: TrainState) -> int:
    """CRC-32 over the bytes of all arrays of a state, in the order of its tree."""
    total = 0
    for leaf in jax.tree.leaves(state):
        total = zlib.crc32(np.ascontiguousarray(leaf).tobytes(), total)
    return total


def _line(error: Exception) -> str:
    return " ".join(str(error).split())[:200] or type(error).__name__
