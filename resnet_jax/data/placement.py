"""Host arrays on their way to the devices, of this process and of others."""

from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding


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
        # jax.device_put would first send the whole array around, to compare it.
        return jax.make_array_from_callback(array.shape, sharding, lambda index: array[index])

    return jax.tree.map(put, tree)


def rows_here(mesh: Mesh, batch_size: int) -> tuple[int, int]:
    """The rows of a batch, divided along the mesh, that this process's devices hold: first, one behind the last."""
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
    axis = len(sharding.spec) - 1
    mesh = sharding.mesh
    assert isinstance(mesh, Mesh)
    first, last = rows_here(mesh, mesh.size)  # in devices

    def put(x: np.ndarray) -> jax.Array:
        per_device = x.shape[axis] // (last - first)
        shape = (*x.shape[:axis], per_device * mesh.size, *x.shape[axis + 1 :])
        offset = first * per_device

        def part(index: Any) -> np.ndarray:
            rows = slice(index[axis].start - offset, index[axis].stop - offset)
            return x[(*index[:axis], rows, *index[axis + 1 :])]

        return jax.make_array_from_callback(shape, sharding, part)

    return jax.tree.map(put, tree)
