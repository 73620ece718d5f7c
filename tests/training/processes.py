"""Several processes over loopback, each with virtual CPU devices of its own, that train one run."""

import dataclasses
import os
import re
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).parents[2]

#: Eight devices in all, whatever the processes; a net whose step takes milliseconds.
DEVICES = 8
FIELDS = {
    "steps": 24, "batch_size": 16, "log_every": 2, "eval_every": 3, "checkpoint_every": 4,
    "model.stage_sizes": "(1,1,1)", "model.widths": "(4,8,8)",
}  # fmt: skip

#: Seconds without a sign of life, in these tests.
HEARTBEAT = 10


@dataclasses.dataclass
class Ended:
    """How a process ended: its exit status and all that it printed."""

    status: int
    output: str


def free_port() -> int:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


class Job:
    """The processes of one run, started at once."""

    def __init__(
        self, verb: str, workdir: Path, processes: int, cache: Path, srun: bool = False, **fields: object
    ) -> None:
        """`fields` change the config; what they print goes to files beside `workdir`.

        With `srun`, they are told of each other by SLURM's variables instead of flags.
        """
        overrides = [f"--config.{name}={value}" for name, value in (FIELDS | fields).items()]
        port = free_port()
        self.logs = [workdir.with_name(f"{workdir.name}.{verb}.{i}.log") for i in range(processes)]
        environment = {k: v for k, v in os.environ.items() if k != "XLA_FLAGS"} | {
            "PYTHONPATH": str(ROOT),
            "JAX_PLATFORMS": "cpu",
            "XLA_FLAGS": f"--xla_force_host_platform_device_count={DEVICES // processes}",
            "JAX_COMPILATION_CACHE_DIR": str(cache),
            "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        }
        config = [f"--config={ROOT / 'configs/digits.py'}:resnet20", *overrides] if verb == "train" else ["--json"]
        self.processes = []
        for i, log in enumerate(self.logs):
            several = [
                f"--coordinator_address=127.0.0.1:{port}", f"--num_processes={processes}", f"--process_id={i}",
                f"--heartbeat_timeout={HEARTBEAT}",
            ]  # fmt: skip
            command = [sys.executable, "-m", "resnet_jax", verb, f"--workdir={workdir}", *config]
            slurm = {
                "SLURM_JOB_ID": str(port), "SLURM_STEP_NODELIST": "localhost", "SLURM_NTASKS": str(processes),
                "SLURM_PROCID": str(i), "SLURM_LOCALID": str(i),
            }  # fmt: skip
            command += several * (processes > 1 and not srun)
            with log.open("w") as file:
                self.processes.append(
                    subprocess.Popen(
                        command, stdout=file, stderr=file, cwd=ROOT, env=environment | (slurm if srun else {})
                    )
                )

    def wait(self, seconds: float = 240) -> list[Ended]:
        """Waits until all have ended.

        Raises:
          TimeoutError: if one has not, with what it printed; all are killed then.
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
        """Ends what is left."""
        for process in self.processes:
            if process.poll() is None:
                process.send_signal(signal.SIGKILL)

    def wait_for_step(self, workdir: Path, step: int, seconds: float = 120) -> None:
        """Waits until metrics.jsonl has a line of `step` or later."""
        end = time.monotonic() + seconds
        path = workdir / "metrics.jsonl"
        while True:
            steps = [int(s) for s in re.findall(r'"step": (\d+)', path.read_text())] if path.exists() else []
            if steps and max(steps) >= step:
                return
            assert all(p.poll() is None for p in self.processes), [log.read_text()[-2000:] for log in self.logs]
            assert time.monotonic() < end, [log.read_text()[-2000:] for log in self.logs]
            time.sleep(0.01)
