"""Checkpoints of a run through Orbax: the state on the devices, and what the host carries beside it."""

from pathlib import Path
from typing import Any

import jax
import orbax.checkpoint as ocp
from jax.sharding import Sharding

from resnet_jax.training.state import TrainState


class Checkpoints:
    """The checkpoints of one run, by step. Written in the background; a half-written one is never seen as one."""

    def __init__(self, directory: Path, keep: int) -> None:
        """`directory` is made when needed; the newest `keep` checkpoints stay."""
        options = ocp.CheckpointManagerOptions(max_to_keep=keep, enable_async_checkpointing=True)
        self._manager = ocp.CheckpointManager(directory.absolute(), options=options)

    def save(self, step: int, state: TrainState, host: dict[str, Any]) -> None:
        """Saves the state after `step` steps, and a JSON-like dict of the host's own."""
        items = ocp.args.Composite(state=ocp.args.StandardSave(state), host=ocp.args.JsonSave(host))
        self._manager.save(step, args=items)

    def restore(self, like: TrainState, sharding: Sharding) -> tuple[TrainState, dict[str, Any]] | None:
        """The newest checkpoint, or None where there is none.

        Args:
          like: a state, or its abstract shapes, of the structure that was saved.
          sharding: where each array goes; it need not be where it came from.
        """
        step = self._manager.latest_step()
        if step is None:
            return None
        abstract = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding), like)
        items = ocp.args.Composite(state=ocp.args.StandardRestore(abstract), host=ocp.args.JsonRestore())
        restored = self._manager.restore(step, args=items)
        return restored.state, restored.host

    def close(self) -> None:
        """Waits until everything is on disk."""
        self._manager.wait_until_finished()
        self._manager.close()
