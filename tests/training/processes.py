"""Runs of a small net in several processes, for the tests beside this file."""

import re
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType

from benchmarks import ROOT
from benchmarks.local_processes import Job

#: Eight devices in all, whatever the processes; a net whose step takes milliseconds.
DEVICES = 8
FIELDS = {
    "steps": 32, "batch_size": 16, "log_every": 2, "eval_every": 16, "checkpoint_every": 4,
    "model.stage_sizes": "(1,1,1)", "model.widths": "(4,8,8)",
}  # fmt: skip

#: Seconds without a sign of life, where a process is killed.
HEARTBEAT = 10


def start(
    verb: str, workdir: Path, processes: int, cache: Path, srun: bool = False, heartbeat: int = 60,
    through: Mapping[int, Sequence[str]] = MappingProxyType({}), **fields: object,
) -> Job:  # fmt: skip
    """Trains or evaluates; `fields` change the config. What they print goes to files beside `workdir`."""
    arguments = [verb, f"--workdir={workdir}"]
    if verb == "train":
        arguments += [f"--config={ROOT}/configs/digits.py:resnet20"]
        arguments += [f"--config.{name}={value}" for name, value in (FIELDS | fields).items()]
    else:
        arguments += ["--json"]
    logs = workdir.with_name(f"{workdir.name}.{verb}")
    return Job(arguments, logs, processes, DEVICES, cache, heartbeat, srun, through)


def wait_for_step(job: Job, workdir: Path, step: int, seconds: float = 120) -> None:
    """Waits until metrics.jsonl has a line of `step` or later."""
    end = time.monotonic() + seconds
    path = workdir / "metrics.jsonl"
    while True:
        steps = [int(s) for s in re.findall(r'"step": (\d+)', path.read_text())] if path.exists() else []
        if steps and max(steps) >= step:
            return
        assert all(p.poll() is None for p in job.processes), [log.read_text()[-2000:] for log in job.logs]
        assert time.monotonic() < end, [log.read_text()[-2000:] for log in job.logs]
        time.sleep(0.01)
