"""A run's process as a launcher holds it: start, look, stop, and what came of it."""

import contextlib
import dataclasses
import datetime
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from experiments.plan import FAILURE, Trial
from resnet_jax.cli.run_command import STOPPED
from resnet_jax.config import to_dict

LOG = "log.txt"

#: Where `python -m experiments` finds the source.
ROOT = Path(__file__).resolve().parents[2]

#: Lines of a failed run's log that are repeated to the reader.
LAST_LINES = 5


@dataclasses.dataclass(frozen=True)
class Outcome:
    """What a process came to.

    Attributes:
      kind: "done"; "stopped" by a signal, with its state saved; "killed" by one, without; "failed".
      text: how it ended, if not "done", and the last lines of its log.
      seconds: that it took.
    """

    kind: str
    text: str
    seconds: float


def request(*trials: Trial) -> dict[str, Any]:
    """What `experiments.trial` is given of runs that go in one program: their folders, absolute, and their configs."""
    return {"runs": [{"folder": str(t.folder.absolute()), "config": to_dict(t.config)} for t in trials]}


def write_failure(folder: Path, text: str) -> None:
    """Marks a run as failed until it begins again; `text` says how it ended."""
    with contextlib.suppress(OSError):  # on a full disk the reader is told all the same
        (folder / FAILURE).write_text(text + "\n")


class TrialProcess:
    """One run, or several in one program, in a process of its own.

    Its output is appended to log.txt in the first run's folder; the others' say where that is.
    """

    def __init__(self, asked: Mapping[str, Any], env: Mapping[str, str]) -> None:
        """Starts it.

        Args:
          asked: see `request`.
          env: environment variables besides this process's own.

        Raises:
          OSError: if a folder or log cannot be written.
        """
        self._folders = [Path(run["folder"]) for run in asked["runs"]]
        for folder in self._folders:
            folder.mkdir(parents=True, exist_ok=True)
            (folder / FAILURE).unlink(missing_ok=True)
        self._began = time.monotonic()
        self._asked_to_stop = False
        self._log = self._folders[0] / LOG
        head = f"--- {datetime.datetime.now(datetime.UTC):%Y-%m-%d %H:%M:%S} UTC on {os.uname().nodename}"
        for folder in self._folders[1:]:
            with (folder / LOG).open("a") as log:
                log.write(f"{head}: in one program with others, see {self._log}\n")
        with self._log.open("a") as log:
            log.write(f"{head}\n")
            log.flush()
            self._log_from = log.tell()
            # In a session of its own: Ctrl-C in a terminal reaches the launcher alone, which then says what to do.
            self._process = subprocess.Popen(
                [sys.executable, "-m", "experiments.trial"],
                cwd=ROOT, env={**os.environ, **env}, stdin=subprocess.PIPE, stdout=log, stderr=log,
                start_new_session=True,
            )  # fmt: skip
        assert self._process.stdin is not None
        with contextlib.suppress(BrokenPipeError):  # it died at once: `poll` says of what
            self._process.stdin.write(json.dumps(asked).encode() + b"\n")
            self._process.stdin.flush()  # and stays open: see experiments/trial.py

    @property
    def pid(self) -> int:
        """Its process number."""
        return self._process.pid

    def stop(self) -> None:
        """Asks it to save its state and end; once is enough."""
        if not self._asked_to_stop:
            self._asked_to_stop = True
            self._process.terminate()

    def kill(self) -> None:
        """Ends it at once and waits until it is gone."""
        self._process.kill()
        self._process.wait()

    def poll(self) -> Outcome | None:
        """What came of it, or None while it runs. A failure is written into the folders of unfinished runs as well."""
        status = self._process.poll()
        if status is None:
            return None
        assert self._process.stdin is not None
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.close()
        seconds = time.monotonic() - self._began
        if status == 0:
            return Outcome("done", "", seconds)
        if status == STOPPED or (self._asked_to_stop and status == -signal.SIGTERM):
            # By SIGTERM alone it ends where there was nothing to save yet, as while it still imports JAX.
            return Outcome("stopped", "stopped from outside by SIGTERM or SIGINT", seconds)
        ended = f"killed by {signal.Signals(-status).name}" if status < 0 else f"exit status {status}"
        text = "\n".join([ended, *self._last_lines()])
        if status < 0:
            return Outcome("killed", text, seconds)
        for folder in self._folders:
            if not (folder / "result.json").exists():
                write_failure(folder, text)
        return Outcome("failed", text, seconds)

    def _last_lines(self) -> list[str]:
        with self._log.open(errors="replace") as log:
            log.seek(self._log_from)
            return [line.rstrip() for line in log if line.strip()][-LAST_LINES:]
