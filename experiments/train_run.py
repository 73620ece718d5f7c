"""Trains one run in a process of its own, which a launcher starts so that a crash harms no other run.

    python -m experiments.train_run < REQUEST

REQUEST is one line of JSON: {"folder": ..., "config": {...}}. The standard input stays open as long as the launcher
lives. When it closes, the run saves its state and stops, as on SIGTERM: no run is left alone on a device.
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
from resnet_jax.errors import writing

LOCK = "launch.lock"  # another file than the lock of `fit`, which refuses where this one waits


def main() -> int:
    """Trains the run and returns the exit status, see `resnet_jax.cli.run_command`."""
    request = json.loads(_read_line())
    threading.Thread(target=_stop_with_launcher, daemon=True).start()
    return run_command(lambda: carry_out(request))


def carry_out(request: dict[str, Any]) -> None:
    """Trains to the end, going on from what is in the folder.

    Raises:
      UserError, Stopped: see `training.loop.fit`.
    """
    from resnet_jax.config import from_dict
    from resnet_jax.tasks.choose import task_type
    from resnet_jax.tasks.task import in_words
    from resnet_jax.training.loop import fit
    from resnet_jax.training.progress import make_progress

    folder = Path(request["folder"])
    with locked(folder), make_progress() as progress:
        result = fit(from_dict(request["config"]), folder, progress)
    print(f"done: {in_words(task_type(result.task), result.metrics, result.evaluated_on)}", flush=True)


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Waits until no other process works on the run in `folder`, and keeps others off it meanwhile.

    Two launchers can want the same run, and a cluster can start a run again while its first process still saves its
    state. The lock ends with its process. On a file system without locks, nothing is waited for.

    Raises:
      UserError: if the folder cannot be written to.
    """
    with contextlib.ExitStack() as stack:
        with writing(folder / LOCK):
            folder.mkdir(parents=True, exist_ok=True)
            file = stack.enter_context((folder / LOCK).open("w"))
        with contextlib.suppress(OSError):  # a file system without locks
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                print("another process works on this run: waiting for its end", flush=True)
                fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _read_line() -> bytes:
    """Returns the first line of the standard input, unbuffered: the thread below reads the same descriptor."""
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
