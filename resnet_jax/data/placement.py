"""Puts host arrays on the devices of this process and of others."""

from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding

#: Images of one evaluation batch, before it is rounded up to a multiple of the devices.
EVAL_BATCH = 500


def eval_batch_size(mesh: Mesh, examples: int) -> int:
    """Returns the size of evaluation batches, over all devices."""
    return -(-min(EVAL_BATCH, examples) // mesh.size) * mesh.size


def place(tree: Any, sharding: NamedSharding) -> Any:
    """Puts arrays on the devices.

    Args:
      tree: host arrays, whole and alike in every process. Each process sends what its own devices hold.
      sharding: of every array.
    """
    if jax.process_count() == 1:
        return jax.device_put(tree, sharding)

    def put(x: Any) -> jax.Array:
        array = np.asarray(x)
        # jax.device_put would first send the whole array to every process, to compare it.
        return jax.make_array_from_callback(array.shape, sharding, lambda index: array[index])

    return jax.tree.map(put, tree)


def rows_here(mesh: Mesh, batch_size: int) -> tuple[int, int]:
    """Returns (first, end) of the rows of a batch, divided along the mesh, that this process's devices hold."""
    here = [i for i, device in enumerate(mesh.devices.flat) if device.process_index == jax.process_index()]
    per_device = batch_size // mesh.size
    return here[0] * per_device, (here[-1] + 1) * per_device


def place_rows(tree: Any, sharding: NamedSharding) -> Any:
    """Puts the rows of `rows_here` on this process's devices, as parts of arrays over all of them.

    Args:
      tree: host arrays, of which each process has its rows along the one axis that `sharding` divides.
      sharding: of every array.
    """
    if jax.process_count() == 1:
        return jax.device_put(tree, sharding)
    return jax.tree.map(lambda x: jax.make_array_from_process_local_data(sharding, x), tree)
