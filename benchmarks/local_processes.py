"""Starts processes of this machine: commands that answer in JSON, and runs with virtual CPU devices."""

import dataclasses
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

from benchmarks import ROOT
from resnet_jax.cache import FOLDER, LEAST_SECONDS
from resnet_jax.errors import UserError


def last_line(text: str) -> str:
    """Returns the last line of what a process printed."""
    return (text.strip().splitlines() or ["it said nothing"])[-1]


def answer(
    arguments: Sequence[str],
    what: str,
    environment: Mapping[str, str] | None = None,
    timeout: float | None = None,
    cpu_seconds: int | None = None,
) -> Any:
    """Runs Python in a process of its own and returns the JSON in the last line that it prints.

    Args:
      arguments: of Python.
      what: begins the message if it fails.
      environment: variables besides this process's own.
      timeout: seconds.
      cpu_seconds: of all its threads together, however busy the machine is.

    Raises:
      UserError: if it fails, with the last line of its error output.
      subprocess.TimeoutExpired: if it takes longer.
    """
    command = [sys.executable, *arguments]
    if cpu_seconds is not None:
        command = ["sh", "-c", f'ulimit -S -t {cpu_seconds}; exec "$@"', "sh", *command]
    done = subprocess.run(
        command, cwd=ROOT, env={**os.environ, **(environment or {})}, capture_output=True, text=True, timeout=timeout
    )
    if cpu_seconds is not None and done.returncode == -signal.SIGXCPU:
        raise subprocess.TimeoutExpired(command, cpu_seconds)
    if done.returncode:
        raise UserError(f"{what}: {last_line(done.stderr)}")
    return json.loads(done.stdout.splitlines()[-1])


@dataclasses.dataclass(frozen=True)
class Ended:
    """How a process ended: its exit status and all that it printed."""

    status: int
    output: str


def free_port() -> int:
    """Returns a port on which nobody listens now."""
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


class Job:
    """The processes of one `python -m resnet_jax` command, started at once.

    Attributes:
      processes: the processes.
      logs: files of what each prints.
    """

    def __init__(
        self,
        arguments: Sequence[str],
        logs: Path,
        processes: int,
        devices: int,
        cache: Path,
        heartbeat: int = 60,
        srun: bool = False,
        through: Mapping[int, Sequence[str]] = MappingProxyType({}),
    ) -> None:
        """Starts them.

        Args:
          arguments: of the command, its verb first.
          logs: the path of the logs without ".N.log".
          processes: how many.
          devices: virtual CPU devices, over all of them.
          cache: folder of compiled programs.
          heartbeat: seconds without a sign of life after which a process counts as dead.
          srun: whether SLURM's variables tell them of each other, instead of flags.
          through: a command, by process, that takes its own as further arguments and becomes it.
        """
        port = free_port()
        self.logs = [logs.with_name(f"{logs.name}.{i}.log") for i in range(processes)]
        devices_flag = f"--xla_force_host_platform_device_count={devices // processes}"
        environment = os.environ | {
            "PYTHONPATH": str(ROOT),
            "JAX_PLATFORMS": "cpu",
            "XLA_FLAGS": f"{os.environ.get('XLA_FLAGS', '')} {devices_flag}",  # the last of two counts
            FOLDER: str(cache),
            LEAST_SECONDS: "0",
        }
        self.processes = []
        for i, log in enumerate(self.logs):
            flags: list[str] = []
            extra: dict[str, str] = {}
            if srun:
                extra = {
                    "SLURM_JOB_ID": str(port), "SLURM_STEP_NODELIST": "localhost", "SLURM_NTASKS": str(processes),
                    "SLURM_PROCID": str(i), "SLURM_LOCALID": str(i),
                }  # fmt: skip
            elif processes > 1:
                flags = [
                    f"--coordinator_address=127.0.0.1:{port}", f"--num_processes={processes}", f"--process_id={i}",
                    f"--heartbeat_timeout={heartbeat}",
                ]  # fmt: skip
            command = [*through.get(i, ()), sys.executable, "-m", "resnet_jax", *arguments, *flags]
            with log.open("w") as file:
                self.processes.append(
                    subprocess.Popen(command, stdout=file, stderr=file, cwd=ROOT, env=environment | extra)
                )

    def wait(self, seconds: float = 600) -> list[Ended]:
        """Waits until all have ended.

        Raises:
          TimeoutError: if one has not ended, with what they printed; all are then killed.
        """
        end = time.monotonic() + seconds
        try:
            for process in self.processes:
                process.wait(max(0.1, end - time.monotonic()))
        except subprocess.TimeoutExpired:
            printed = [log.read_text()[-2000:] for log in self.logs]
            raise TimeoutError(f"still running after {seconds} s: {printed}") from None
        finally:
            self.kill()
        return [Ended(p.returncode, log.read_text()) for p, log in zip(self.processes, self.logs, strict=True)]

    def kill(self) -> None:
        """Kills the processes that still run."""
        for process in self.processes:
            process.kill()
            process.wait()
