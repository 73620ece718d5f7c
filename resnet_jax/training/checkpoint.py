"""Saves and restores a run through Orbax: the state on the devices, and what the host keeps beside it."""

import copy
import dataclasses
import itertools
import json
import os
import shutil
import zlib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
from jax.sharding import NamedSharding
from orbax.checkpoint.checkpoint_managers import preservation_policy as policies

from resnet_jax.errors import PLENTY, UserError, check_memory, lacks_memory, one_line, writing
from resnet_jax.training.distributed import agreed, all_agree
from resnet_jax.training.orbax_clock import use_monotonic_clock
from resnet_jax.training.packing import layout, pack, packed_shapes, unpack
from resnet_jax.training.step import TrainState


@dataclasses.dataclass(frozen=True)
class Restored:
    """Holds a checkpoint that was read back.

    Attributes:
      state: the state, as it was saved.
      host: what the host saved beside it.
      damaged: a sentence for each newer checkpoint that could not be read.
    """

    state: TrainState
    host: dict[str, Any]
    damaged: tuple[str, ...]


@dataclasses.dataclass
class _KeepBest(policies.PreservationPolicy):
    """Keeps the checkpoint with the best of `scores`, by step; the first of several alike.

    Orbax would keep what is best of the checkpoints that its own process saved.
    """

    lower_is_better: bool
    scores: Mapping[int, float] = dataclasses.field(default_factory=dict)

    def should_preserve(self, checkpoints: Sequence[Any], *, context: Any) -> Sequence[bool]:
        scored = [c.step for c in checkpoints if c.step in self.scores]
        best = (min if self.lower_is_better else max)(scored, key=self.scores.__getitem__, default=None)
        return [c.step == best for c in checkpoints]


class Checkpoints:
    """Keeps the checkpoints of one run, by step: the newest `keep`, and the best.

    They are written in the background, each into a folder that gets its name when it is whole: a kill leaves a
    checkpoint or none. Several processes open the same folder, which all of them must see, and call every method
    together.
    """

    def __init__(self, directory: Path, keep: int, lower_is_better: bool = True, read_only: bool = False) -> None:
        """Opens `directory`, which is made when needed; with `read_only`, nothing in it is ever changed."""
        use_monotonic_clock()
        self._directory, self._read_only = directory.absolute(), read_only
        self._best = _KeepBest(lower_is_better)
        options = ocp.CheckpointManagerOptions(
            preservation_policy=policies.AnyPreservationPolicy([policies.LatestN(keep), self._best]),
            enable_async_checkpointing=not read_only,
            read_only=read_only,
        )
        self._manager = ocp.CheckpointManager(self._directory, options=options)
        self._opened = None if read_only else os.stat(self._directory)

    def steps(self) -> list[int]:
        """Returns the steps of the checkpoints, ascending."""
        return sorted(self._manager.all_steps())

    def save(self, step: int, state: TrainState, host: dict[str, Any], scores: Mapping[int, float]) -> None:
        """Saves the state after `step` steps, unless that is saved already.

        Args:
          step: steps done.
          state: the state; it is copied before this returns.
          host: a JSON-like dict of the host's own.
          scores: the metric that decides which checkpoint is the best, of every step so far that was evaluated.

        Raises:
          UserError: if this or the last checkpoint could not be written, as on a full disk; see also `wait`.
        """
        agreed(self._check_is_there)
        if step in self._manager.all_steps():
            return
        # Copied: it is written in the background, while the run goes on to change its lists.
        host = copy.deepcopy(host) | {"layout": layout(state)}
        # Orbax and TensorStore do not notice every flipped bit; the sum of what was meant to be written does.
        host["checksum"] = checksum_with_host(checksum(state), host)
        items = ocp.args.Composite(state=ocp.args.StandardSave(pack(state)), host=ocp.args.JsonSave(host))
        self._best.scores = dict(scores)
        try:
            self._manager.save(step, args=items)
        except (OSError, ValueError, RuntimeError) as error:
            raise self._failed(error) from error

    def restore(self, like: TrainState, sharding: NamedSharding) -> Restored | None:
        """Reads the newest checkpoint that is whole; None where there is none at all.

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
                check_memory(error, _needed(like))
                why = one_line(error)
            if not all_agree(found is not None) or found is None:
                damaged[step] = f"checkpoint {step} cannot be read ({why})"
                continue
            if damaged and not self._read_only:
                self._move_aside(damaged, "damaged")
            return Restored(*found, tuple(damaged.values()))
        if damaged:
            raise UserError(
                f"no checkpoint in {self._directory} can be used: {'; '.join(damaged.values())}; "
                "move the folder away to train anew"
            )
        return None

    def set_aside_from(self, step: int) -> None:
        """Renames the checkpoints of this step and later ones to `unused-STEP`, so that the run can save them again."""
        self._move_aside([s for s in self.steps() if s >= step], "unused")

    def _move_aside(self, steps: Iterable[int], prefix: str) -> None:
        agreed(lambda: [_move_aside(self._directory / str(step), prefix) for step in steps])
        self._manager.reload()

    def can_read(self, step: int, like: TrainState, sharding: NamedSharding) -> bool:
        """Returns whether there is a checkpoint of this step, and it is whole; see `restore`."""
        self.wait()
        whole = False
        try:
            whole = step in self._manager.all_steps() and self._read(step, like, sharding) is not None
        except Exception as error:  # each layer of Orbax and TensorStore has its own types for damage
            check_memory(error, _needed(like))
        return all_agree(whole)

    def drop_after(self, step: int) -> None:
        """Removes the checkpoints newer than that of a step."""
        self.wait()
        for later in [s for s in self._manager.all_steps() if s > step]:
            self._manager.delete(later)

    def wait(self) -> None:
        """Waits until everything is on disk.

        Raises:
          UserError: if the last checkpoint could not be written, or the folder was removed or replaced.
        """
        try:
            self._manager.wait_until_finished()
        except (OSError, ValueError, RuntimeError) as error:
            raise self._failed(error) from error
        agreed(self._check_is_there)

    def _check_is_there(self) -> None:
        """Raises UserError if the folder is another than the one that was opened: Orbax would make it again."""
        if self._opened is None:
            return
        try:
            there = os.path.samestat(self._opened, os.stat(self._directory))
        except OSError:
            there = False
        if not there:
            raise UserError(
                f"{self._directory} was removed or replaced while this process trained, which therefore ends; the same "
                "command goes on from the newest checkpoint that is left, or anew"
            )

    def _read(self, step: int, like: TrainState, sharding: NamedSharding) -> tuple[TrainState, dict[str, Any]]:
        arrays = ocp.args.StandardRestore(packed_shapes(like, sharding))
        restored = self._manager.restore(step, args=ocp.args.Composite(state=arrays, host=ocp.args.JsonRestore()))
        host = dict(restored.host)
        if layout(like) != host["layout"]:
            raise ValueError("its arrays are those of another net or optimiser")
        state = unpack(restored.state, like, sharding)
        arrays, found = checksum(state), host.pop("checksum")
        if found not in (checksum_with_host(arrays, host), arrays):  # the second in checkpoints of early versions
            raise ValueError("its checksum does not match")
        del host["layout"]
        return state, host

    def close(self) -> None:
        """Waits as `wait` does, and closes the folder."""
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
        try:
            full = shutil.disk_usage(self._directory).free < 2**20
            why = "the disk is full" if full else "not enough memory" if lacks_memory(error) else one_line(error)
        except OSError as gone:
            return UserError(f"cannot write a checkpoint to {self._directory}: {gone.strerror}")
        return UserError(
            f"cannot write a checkpoint to {self._directory}: {why}; whole checkpoints there: {whole}. With that "
            "mended, the same command goes on from the newest"
        )


def _needed(state: TrainState) -> int:
    """Returns bytes that reading a state may take at most."""
    return PLENTY + 4 * sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(state))


def checksum(state: TrainState) -> int:
    """Returns the CRC-32 of the bytes of all arrays of a state, in the order of its tree."""
    total = 0
    for leaf in jax.tree.leaves(state):
        total = zlib.crc32(np.ascontiguousarray(leaf).tobytes(), total)
    return total


def checksum_with_host(arrays: int, host: Mapping[str, Any]) -> int:
    """Returns the CRC-32 of what `arrays` is the CRC-32 of, followed by what the host saves as JSON."""
    return zlib.crc32(json.dumps(host, sort_keys=True).encode(), arrays)


def _move_aside(path: Path, prefix: str) -> str:
    """Renames `STEP` to `PREFIX-STEP`, or, where something has that name, to `PREFIX-STEP.2` and so on."""
    names = (f"{prefix}-{path.name}{'' if n == 1 else f'.{n}'}" for n in itertools.count(1))
    free = next(name for name in names if not os.path.lexists(path.with_name(name)))
    with writing(path):
        path.rename(path.with_name(free))
    return free


def read_newest(directory: Path, like: TrainState, sharding: NamedSharding) -> Restored | None:
    """Reads the newest checkpoint of a run that is whole, and changes nothing; see `Checkpoints.restore`."""
    checkpoints = Checkpoints(directory, 1, read_only=True)
    try:
        return checkpoints.restore(like, sharding)
    finally:
        checkpoints.close()
