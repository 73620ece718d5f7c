"""Runs a command as people do: in a terminal of 80 columns, and in a pipe."""

import os
import pty
import select
import subprocess
import time
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

COLUMNS = 80


class Done(NamedTuple):
    """Exit status, and all that was printed."""

    status: int
    printed: str


def in_pipe(command: str, cwd: Path, env: Mapping[str, str], seconds: float) -> Done:
    """Runs a command of bash with its output in a pipe."""
    done = subprocess.run(["bash", "-c", command], cwd=cwd, env={**os.environ, **env}, timeout=seconds,
                          stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)  # fmt: skip
    return Done(done.returncode, done.stdout.decode())


def in_terminal(command: str, cwd: Path, env: Mapping[str, str], seconds: float) -> Done:
    """Runs a command of bash in a pseudo-terminal."""
    ours, theirs = pty.openpty()
    environment = {**os.environ, **env, "COLUMNS": str(COLUMNS), "LINES": "40", "TERM": "xterm-256color"}
    process = subprocess.Popen(["bash", "-c", command], cwd=cwd, env=environment, stdin=theirs, stdout=theirs,
                               stderr=theirs, start_new_session=True)  # fmt: skip
    os.close(theirs)
    printed, end = b"", time.monotonic() + seconds
    try:
        while True:
            ready, _, _ = select.select([ours], [], [], max(0.0, end - time.monotonic()))
            if not ready:
                raise TimeoutError(f"{command} takes more than {seconds:.0f} s")
            try:
                chunk = os.read(ours, 65536)
            except OSError:  # Linux says so that the other side is closed
                break
            if not chunk:
                break
            printed += chunk
    finally:
        if process.poll() is None and time.monotonic() >= end:
            process.kill()
        status = process.wait()
        os.close(ours)
    return Done(status, printed.decode(errors="replace"))
