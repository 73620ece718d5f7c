"""Lays out all devices as one mesh, whose one axis divides the batch."""

from collections.abc import Sequence

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from resnet_jax.errors import UserError

DATA_AXIS = "data"


def make_mesh(devices: Sequence[jax.Device] | None = None) -> Mesh:
    """Returns a mesh of the given devices, by default all of them, along the axis "data"."""
    return Mesh(np.array(jax.devices() if devices is None else devices), (DATA_AXIS,))


def replicated(mesh: Mesh) -> NamedSharding:
    """Returns the sharding of what every device holds whole: parameters, small data sets."""
    return NamedSharding(mesh, P())


def batch_sharded(mesh: Mesh, axis: int = 0) -> NamedSharding:
    """Returns the sharding that gives each device a share of axis `axis`."""
    return NamedSharding(mesh, P(*[None] * axis, DATA_AXIS))


def platform(mesh: Mesh) -> str:
    """Returns what the mesh's devices are: "cpu", "gpu" or "tpu"."""
    return mesh.devices.flat[0].platform


def check_batch(mesh: Mesh, batch_size: int, micro_batches: int = 1) -> None:
    """Raises UserError if the devices cannot share each micro-batch of a batch evenly."""
    if micro_batches > 1 and batch_size // micro_batches % mesh.size:
        raise UserError(
            f"config.batch_size={batch_size} in config.accumulate={micro_batches} micro-batches of "
            f"{batch_size // micro_batches} is not divisible by the {mesh.size} devices"
        )
    if batch_size % mesh.size:
        below = batch_size // mesh.size * mesh.size
        near = [str(size) for size in (below, below + mesh.size) if size]
        raise UserError(
            f"config.batch_size={batch_size} is not divisible by the {mesh.size} devices; {' or '.join(near)} would be"
        )
