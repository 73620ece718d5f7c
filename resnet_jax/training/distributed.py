"""Lets several devices train as one mesh, and several processes as one by JAX's multi-controller runtime."""

import contextlib
import json
import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from resnet_jax.errors import ProcessLost, UserError, one_line
from resnet_jax.training import shutdown

T = TypeVar("T")

#: The mesh's one axis, which divides the batch.
DATA_AXIS = "data"

#: Seconds without a sign of life after which a process counts as dead, and the others end.
HEARTBEAT_TIMEOUT = 60

#: How the errors begin that are not for want of another process, such as too little memory.
_OWN_FAULTS = ("RESOURCE_EXHAUSTED", "INVALID_ARGUMENT", "UNIMPLEMENTED", "NOT_FOUND", "OUT_OF_RANGE")

#: Variables by which a launcher says that it started one process alone.
_ALONE = ("SLURM_NTASKS", "OMPI_COMM_WORLD_SIZE")


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


def initialize(
    coordinator_address: str | None = None,
    num_processes: int | None = None,
    process_id: int | None = None,
    heartbeat_timeout: int = HEARTBEAT_TIMEOUT,
) -> None:
    """Joins the other processes, if there are any; to be called before JAX is asked for its devices.

    Without arguments, JAX finds the others from the environment on TPU pods (Cloud TPU VMs and GKE), under SLURM's srun
    and under Open MPI's mpirun; where it finds none, this process is alone. With `num_processes=1` it is in any case.

    Args:
      coordinator_address: "host:port" of process 0, the same in every process.
      num_processes, process_id: how many there are, and which this is, from 0.
      heartbeat_timeout: seconds until a process that is gone ends the others.

    Raises:
      UserError: for arguments that are incomplete or do not fit, and where the others cannot be reached.
    """
    given = [x is not None for x in (coordinator_address, num_processes, process_id)]
    if num_processes == 1 or (not any(given) and any(os.environ.get(name) == "1" for name in _ALONE)):
        return
    if any(given) and not all(given):
        raise UserError("several processes need all of --coordinator_address=HOST:PORT, --num_processes, --process_id")
    if num_processes is not None and process_id is not None and not 0 <= process_id < num_processes:
        raise UserError(f"--process_id={process_id} must be from 0 to {num_processes - 1}")
    if coordinator_address is not None and not coordinator_address.rpartition(":")[2].isdigit():
        raise UserError(f"--coordinator_address={coordinator_address} must be HOST:PORT")
    try:
        jax.distributed.initialize(
            coordinator_address,
            num_processes,
            process_id,
            heartbeat_timeout_seconds=heartbeat_timeout,
            # A process that ends by itself waits for the others no longer than they would wait for a dead one.
            shutdown_timeout_seconds=heartbeat_timeout,
        )
    except ValueError as error:
        # What JAX says where it knows no launcher. Any other complaint must not pass: each process would train alone.
        if not any(given) and "coordinator_address should be defined" in str(error):
            return
        raise UserError(f"cannot join the other processes: {one_line(error, 300)}") from error
    except RuntimeError as error:
        raise UserError(f"cannot join the other processes at {coordinator_address}: {one_line(error, 300)}") from error
    shutdown.watch()


def is_chief() -> bool:
    """Returns whether this is process 0, which alone writes records and shows progress."""
    return jax.process_index() == 0


def agreed(function: Callable[[], Any]) -> Any:
    """Calls a function in process 0 and returns its JSON-like result in all.

    Raises:
      UserError: in all processes, if the function raises it; in the others also for any other exception in process 0.
    """
    if jax.process_count() == 1:
        return function()
    answer: dict[str, Any] = {}
    raised: Exception | None = None
    if is_chief():
        try:
            answer = {"value": function()}
        except Exception as error:
            raised = error
            answer = {"error": str(error) if isinstance(error, UserError) else f"process 0 failed: {error!r}"}
    answer = json.loads(_broadcast(json.dumps(answer)))
    if raised is not None:
        raise raised
    if "error" in answer:
        raise UserError(answer["error"])
    return answer["value"]


def together(function: Callable[[], T]) -> T:
    """Calls a function in every process, in process 0 first, so that the others find what it downloads.

    Raises:
      UserError: in all processes, if it raises it in one.
    """
    if jax.process_count() == 1:
        return function()
    error: UserError | None = None
    value: T | None = None
    for mine in (is_chief(), not is_chief()):
        if mine:
            try:
                value = function()
            except UserError as raised:
                error = raised
        if not all_agree(error is None):
            raise error or UserError("another process cannot do its part; what it prints says why")
    assert value is not None
    return value


@contextlib.contextmanager
def explain_lost_process(workdir: Path) -> Iterator[None]:
    """Turns what JAX raises where another process is gone into `ProcessLost`, which says how to go on."""
    try:
        yield
    except jax.errors.JaxRuntimeError as error:
        if jax.process_count() == 1 or str(error).startswith(_OWN_FAULTS):
            raise
        raise ProcessLost(
            f"another process is gone ({str(error).splitlines()[0][:200]}); started again, all with the same command, "
            f"they go on from the newest checkpoint in {workdir}"
        ) from error


def _broadcast(text: str) -> str:
    """Returns the text of process 0 in every process."""
    data = np.frombuffer(text.encode(), np.uint8)
    length = int(multihost_utils.broadcast_one_to_all(np.int32(len(data))))
    padded = np.zeros(length, np.uint8)
    padded[: len(data)] = data[:length]
    return bytes(np.asarray(multihost_utils.broadcast_one_to_all(padded), np.uint8)).decode()


def all_agree(mine: bool) -> bool:
    """Returns whether `mine` is true in every process."""
    if jax.process_count() == 1:
        return mine
    return bool(np.all(multihost_utils.process_allgather(np.int32(mine))))


def in_any(mine: np.ndarray) -> np.ndarray:
    """Returns where a bool array (n,) is true in any process; all call this together."""
    if jax.process_count() == 1:
        return mine
    return multihost_utils.process_allgather(mine).any(axis=0)
