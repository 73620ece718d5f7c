"""The process that trains a run: start it, look at it, stop it, and see how it ended."""

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

from experiments import ROOT
from experiments.plan import FAILURE, Trial
from resnet_jax.cli.run_command import STOPPED
from resnet_jax.config import to_dict

LOG = "log.txt"

#: Lines of a failed run's log that are shown to the reader.
LAST_LINES = 5


@dataclasses.dataclass(frozen=True)
class Outcome:
    """How a process ended.

    Attributes:
      kind: "done"; "stopped" by a signal, with its state saved; "killed" by one, without; "failed".
      text: how it ended, if not "done", and the last lines of its log.
      seconds: that it took.
    """

    kind: str
    text: str
    seconds: float


def request(trial: Trial) -> dict[str, Any]:
    """Returns what `experiments.train_run` is sent: the run's absolute folder and its config."""
    return {"folder": str(trial.folder.absolute()), "config": to_dict(trial.config)}


def write_failure(folder: Path, text: str) -> None:
    """Marks a run as failed until it begins again; `text` says how it ended."""
    with contextlib.suppress(OSError):  # the disk may be full; the reader is told all the same
        (folder / FAILURE).write_text(text + "\n")


class TrialProcess:
    """One run in a process of its own. Its output is appended to log.txt in the run's folder."""

    def __init__(self, asked: Mapping[str, Any], env: Mapping[str, str]) -> None:
        """Starts it.

        Args:
          asked: see `request`.
          env: environment variables besides this process's own.

        Raises:
          OSError: if the folder or log cannot be written.
        """
        self._folder = Path(asked["folder"])
        self._folder.mkdir(parents=True, exist_ok=True)
        (self._folder / FAILURE).unlink(missing_ok=True)
        self._began = time.monotonic()
        self._asked_to_stop = False
        with (self._folder / LOG).open("a") as log:
            log.write(f"--- {datetime.datetime.now(datetime.UTC):%Y-%m-%d %H:%M:%S} UTC on {os.uname().nodename}\n")
            log.flush()
            self._log_from = log.tell()
            # In a session of its own: Ctrl-C in a terminal then reaches the launcher alone, which stops the runs.
            self._process = subprocess.Popen(
                [sys.executable, "-m", "experiments.train_run"],
                cwd=ROOT, env={**os.environ, **env}, stdin=subprocess.PIPE, stdout=log, stderr=log,
                start_new_session=True,
            )  # fmt: skip
        assert self._process.stdin is not None
        with contextlib.suppress(BrokenPipeError):  # it died at once: `poll` says why
            self._process.stdin.write(json.dumps(asked).encode() + b"\n")
            self._process.stdin.flush()  # and stays open: see experiments/train_run.py

    @property
    def pid(self) -> int:
        """Its process number."""
        return self._process.pid

    def stop(self) -> None:
        """Asks it, once, to save its state and end."""
        if not self._asked_to_stop:
            self._asked_to_stop = True
            self._process.terminate()

    def kill(self) -> None:
        """Ends it at once and waits until it is gone."""
        self._process.kill()
        self._process.wait()

    def poll(self) -> Outcome | None:
        """Returns how it ended, or None while it runs. A failure is also written into the run's folder."""
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
            # SIGTERM itself ends it while there is nothing to save yet, as while it imports JAX.
            return Outcome("stopped", "stopped from outside by SIGTERM or SIGINT", seconds)
        ended = f"killed by {signal.Signals(-status).name}" if status < 0 else f"exit status {status}"
        text = "\n".join([ended, *self._last_lines()])
        if status < 0:
            return Outcome("killed", text, seconds)
        write_failure(self._folder, text)
        return Outcome("failed", text, seconds)

    def _last_lines(self) -> list[str]:
        with (self._folder / LOG).open(errors="replace") as log:
            log.seek(self._log_from)
            return [line.rstrip() for line in log if line.strip()][-LAST_LINES:]
