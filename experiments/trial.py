"""A run in a process of its own: what a launcher starts, so that a crash of it harms no other.

    python -m experiments.trial < REQUEST

The request is one line of JSON: {"runs": [{"folder": ..., "config": {...}}, ...]}; several differ in their seed alone,
and go in one program. The standard input stays open as long as the launcher lives. When it ends, the runs save their
state and stop, as on SIGTERM: no run is left alone on a device.
"""

import contextlib
import fcntl
import json
import os
import signal
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from resnet_jax.cli.run_command import run_command

LOCK = "launch.lock"  # not that of `fit`, which refuses where this one waits


def main() -> int:
    """Carries the run out and returns the exit status, see `resnet_jax.cli.run_command`."""
    request = json.loads(_read_line())
    threading.Thread(target=_stop_with_launcher, daemon=True).start()
    return run_command(lambda: carry_out(request))


def carry_out(request: dict[str, Any]) -> None:
    """Trains to the end, going on from what is in the folders.

    Raises:
      UserError, Stopped: see `training.loop.fit_seeds`.
    """
    from resnet_jax.config import from_dict
    from resnet_jax.training.loop import fit_seeds
    from resnet_jax.training.progress import make_progress

    configs = [from_dict(run["config"]) for run in request["runs"]]
    folders = [Path(run["folder"]) for run in request["runs"]]
    with contextlib.ExitStack() as stack:
        for folder in sorted(folders):  # in one order: two launchers must not wait for each other
            stack.enter_context(locked(folder))
        results = fit_seeds(configs, folders, stack.enter_context(make_progress()))
    for result in results:
        name = f"seed {result.seed} " if len(results) > 1 else ""
        print(
            f"{name}done: training error {result.train_error:.2f} %, test error {result.test_error:.2f} %", flush=True
        )


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Waits until no other process works on the run in `folder`, and keeps others off it meanwhile.

    Two launchers can want the same run, and a cluster can start a run again whose first process still saves its
    state. The lock ends with its process, however that ends.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / LOCK).open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            print("another process works on this run: waiting for its end", flush=True)
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _read_line() -> bytes:
    """The first line of the standard input, past any buffer: the thread below reads the same descriptor."""
    line = b""
    while not line.endswith(b"\n") and (byte := os.read(0, 1)):
        line += byte
    return line


def _stop_with_launcher() -> None:
    while os.read(0, 1):
        pass
    os.kill(os.getpid(), signal.SIGTERM)


if __name__ == "__main__":
    sys.exit(main())
