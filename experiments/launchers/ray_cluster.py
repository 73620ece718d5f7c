"""Trains runs on a Ray cluster: each is a task with its devices as resources, retried elsewhere if its node dies.

The nodes must see this checkout, its Python and the folder of the runs under the same paths, as on shared storage:
there a retried run finds its checkpoint.
"""

import contextlib
import dataclasses
import os
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from experiments.launchers.dashboard import Board
from experiments.launchers.local import goes_on
from experiments.launchers.process import LOG, Outcome, TrialProcess, request, write_failure
from experiments.plan import State, Trial, newest_checkpoint, status
from resnet_jax.errors import UserError
from resnet_jax.training.stopping import StopRequest

#: How often a run is started again on another node after its own has died.
RETRIES = 10

#: Seconds between two looks of a task at its process, and of the launcher at the tasks.
INTERVAL = 0.5


@dataclasses.dataclass(frozen=True)
class Cluster:
    """A Ray cluster to which this process is connected.

    Attributes:
      resources: of one run, as options of a Ray task.
      at_once: runs that it has room for.
    """

    resources: dict[str, Any]
    at_once: int

    def launch(self, trials: Sequence[Trial], out: Path, board: Board, stop: StopRequest) -> None:
        """Carries runs out as `local.launch` does, in folders under `out`, on storage that all nodes share."""
        import ray

        out.mkdir(parents=True, exist_ok=True)
        token = out.absolute() / f".launch-{uuid.uuid4().hex}"
        token.touch()
        task = ray.remote(max_retries=RETRIES, **self.resources)(work)
        waiting: dict[Any, _Submitted] = {}

        def submit(trial: Trial) -> None:
            reference = task.remote(request(trial), str(token))
            waiting[reference] = _Submitted(trial, newest_checkpoint(trial.folder), _size(trial.folder / LOG))

        try:
            for trial in trials:
                submit(trial)
            while waiting:
                if stop.signal is not None:
                    token.unlink(missing_ok=True)
                ready, _ = ray.wait(list(waiting), timeout=INTERVAL)
                for reference in ready:
                    submitted = waiting.pop(reference)
                    outcome = _outcome(reference, submitted.trial)
                    if goes_on(submitted.trial, outcome, submitted.step, stop, board):
                        submit(submitted.trial)
                for submitted in waiting.values():
                    # Its log grows when its process begins, wherever that is.
                    if not submitted.started and _size(submitted.trial.folder / LOG) > submitted.log_size:
                        submitted.started = True
                        board.start(submitted.trial)
                board.tick()
        finally:
            token.unlink(missing_ok=True)  # what still runs, after a second Ctrl-C, saves its state and ends


@dataclasses.dataclass
class _Submitted:
    trial: Trial
    step: int  # of its newest checkpoint when it was submitted
    log_size: int
    started: bool = False


@contextlib.contextmanager
def connected(at_once: int) -> Iterator[Cluster]:
    """Connects to the cluster that RAY_ADDRESS names, or starts one on this machine.

    Args:
      at_once: runs that share a device.

    Raises:
      UserError: if Ray is not installed, or no cluster has room for a run.
    """
    try:
        import ray
    except ImportError:
        raise UserError(
            "--launcher=ray needs Ray, which is not installed: python -m pip install -r requirements-ray.txt"
        ) from None
    try:
        ray.init(log_to_driver=False, configure_logging=False, include_dashboard=False)
    except (ConnectionError, ValueError, RuntimeError) as error:
        address = os.environ.get("RAY_ADDRESS", "this machine")
        raise UserError(f"cannot connect to the Ray cluster of {address}: {' '.join(str(error).split())}") from error
    try:
        yield cluster([node["Resources"] for node in ray.nodes() if node["Alive"]], at_once)
    finally:
        ray.shutdown()


def cluster(nodes: Sequence[Mapping[str, float]], at_once: int) -> Cluster:
    """Returns what a run gets: an accelerator if there are any, else all processors of a node.

    Args:
      nodes: the resources of each node that is alive.
      at_once: runs that share it.

    Raises:
      UserError: if no node has room, or for several runs on a TPU's chip.
    """
    for kind in ("GPU", "TPU"):
        if count := int(sum(node.get(kind, 0) for node in nodes)):
            if kind == "TPU" and at_once > 1:
                raise UserError(f"--at_once={at_once}: a TPU's chip can be opened by one process only")
            share = {"num_gpus": 1 / at_once} if kind == "GPU" else {"resources": {"TPU": 1}}
            return Cluster({"num_cpus": 1, **share}, count * at_once)
    processors = [int(node.get("CPU", 0)) for node in nodes if node.get("CPU", 0) >= 1]
    if not processors:
        raise UserError("no node of the Ray cluster has a processor, GPU or TPU to give")
    each = max(1, min(processors) // at_once)  # even the smallest node must have room
    return Cluster({"num_cpus": each}, sum(count // each for count in processors))


def work(asked: Mapping[str, Any], token: str) -> Outcome:
    """Carries a run out in a process of its own, as long as the launcher's token is there: the Ray task.

    If this worker dies, the process's standard input closes, and it saves its state and ends; a process on another
    node that takes the run over waits for its lock.
    """
    if not Path(token).exists():
        return Outcome("stopped", f"it did not begin: its node ({os.uname().nodename}) does not see {token}", 0)
    process = TrialProcess(asked, {})
    try:
        while (outcome := process.poll()) is None:
            if not Path(token).exists():
                process.stop()
            time.sleep(INTERVAL)
        return outcome
    except BaseException:  # Ray cancels a task by an exception
        process.stop()
        raise


def _outcome(reference: Any, trial: Trial) -> Outcome:
    """Returns how a task ended; an error of Ray itself, after all retries, is a failure of the run."""
    import ray

    try:
        return ray.get(reference)
    except ray.exceptions.RayError as error:
        text = " ".join(str(error).split())[-500:]
        if status(trial).state is not State.DONE:
            write_failure(trial.folder, text)
        return Outcome("failed", text, 0)


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0
