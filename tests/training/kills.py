"""Kills a run again and again with SIGKILL and compares it with one that was left alone.

python -m tests.training.kills --kills=200     (make soak)

Half of them as digits are trained by default, half with all that a run keeps beside its parameters.
"""

import argparse
import json
import os
import random
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

import numpy as np

from resnet_jax.kernels import build
from resnet_jax.training.run_record import MACHINE_METRICS
from tests.training.clocks import jumping

ROOT = Path(__file__).parents[2]

#: A narrow net whose step takes few milliseconds, with a checkpoint every other step: most kills hit one being written.
FIELDS = {
    "steps": 20_000, "batch_size": 16, "log_every": 3, "eval_every": 50, "checkpoint_every": 2, "seed": 3,
    "model.stage_sizes": "(1,1,1)", "model.widths": "(4,4,8)",
}  # fmt: skip

#: The best checkpoint and the newest alone, batches left out, an average of the parameters, micro-batches.
OPTIONS = {
    "keep_checkpoints": 1, "early_stopping.patience": 1000, "eval_every": 10, "data.eval_split": "held_out",
    "data.held_out_share": 0.1, "on_nan": "rollback", "loss_jump": 1.08, "regularization.ema_decay": 0.9,
    "accumulate": 2,
}  # fmt: skip


def command(workdir: Path, **fields: object) -> list[str]:
    overrides = [f"--config.{name}={value}" for name, value in (FIELDS | fields).items()]
    config = f"--config={ROOT / 'configs/digits.py'}:resnet20"
    return [sys.executable, "-m", "resnet_jax", "train", config, f"--workdir={workdir}", *overrides]


def environment(workdir: Path) -> dict[str, str]:
    """One CPU device with its layers in C++, as a user has it, and compilations kept for the next start.

    The tests' own process has eight devices and no such layers.
    """
    return {name: value for name, value in os.environ.items() if name != build.SWITCH} | {
        "XLA_FLAGS": re.sub(r"--xla_force_host_platform_device_count=\d+", "", os.environ.get("XLA_FLAGS", "")),
        "PYTHONPATH": str(ROOT),
        "JAX_PLATFORMS": "cpu",
        "JAX_COMPILATION_CACHE_DIR": str(workdir.parent / "cache"),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
    }


def lines(workdir: Path) -> list[dict[str, float]]:
    """Lines of metrics.jsonl without what depends on the clock."""
    text = (workdir / "metrics.jsonl").read_text()
    return [{k: v for k, v in json.loads(line).items() if k not in MACHINE_METRICS} for line in text.splitlines()]


def kill_and_resume(
    workdir: Path, kills: int, seed: int, longest: float, fields: Mapping[str, object], clock: Path | None = None
) -> None:
    """Starts the run `kills` times and kills it at a random moment of its training.

    Args:
      workdir: the run's folder.
      kills: how often.
      seed: of the random moments.
      longest: seconds after one of the first lines, at most.
      fields: of the config, beside `FIELDS`.
      clock: a library by which its wall clock jumps, see `clocks`.
    """
    rng = random.Random(seed)
    for number in range(kills):
        process = subprocess.Popen(
            command(workdir, **fields),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            cwd=ROOT,
            env=environment(workdir) | (jumping(clock, number) if clock else {}),
        )
        assert process.stderr is not None
        for line in process.stderr:
            if "compiling" in line:
                break
        # One in five dies while it starts up and compiles, the others while they train and write.
        enough = _count(workdir / "metrics.jsonl") + rng.randint(1, 20)
        while number % 5 and process.poll() is None and _count(workdir / "metrics.jsonl") < enough:
            time.sleep(0.002)
        time.sleep(rng.uniform(0, longest))
        assert process.poll() is None, f"it ended before kill {number}: {process.stderr.read()}"
        process.kill()
        process.wait()


def _count(path: Path) -> int:
    return path.read_bytes().count(b"\n") if path.exists() else 0


def last_step(workdir: Path) -> int:
    """The newest line's step."""
    found = lines(workdir)
    return int(found[-1]["step"]) if found else 0


def state_bytes(workdir: Path) -> list[bytes]:
    """All arrays of the newest checkpoint."""
    import orbax.checkpoint as ocp

    manager = ocp.CheckpointManager((workdir / "checkpoints").absolute())
    step = manager.latest_step()
    restored = manager.restore(step, args=ocp.args.Composite(state=ocp.args.StandardRestore()))
    manager.close()
    import jax

    return [np.asarray(leaf).tobytes() for leaf in jax.tree.leaves(restored.state)]


def checkpoints(workdir: Path) -> list[int]:
    """Steps of the checkpoints that are kept."""
    return sorted(int(path.name) for path in (workdir / "checkpoints").iterdir() if path.name.isdigit())


def compare(
    folder: Path, kills: int, seed: int = 0, longest: float = 0.3, fields: Mapping[str, object] = MappingProxyType({}),
    clock: Path | None = None,
) -> int:  # fmt: skip
    """Runs both, asserts that they are bitwise the same, and returns the number of steps; see `kill_and_resume`."""
    killed, whole = folder / "killed", folder / "whole"
    kill_and_resume(killed, kills, seed, longest, fields, clock)
    steps = -(-last_step(killed) // 50) * 50 + 50
    # The schedule's drops lie at fractions of the steps: far beyond what is trained here, for both alike.
    train_up_to(killed, steps, fields, jumping(clock, kills) if clock else {})
    train_up_to(whole, steps, fields)
    assert lines(killed) == lines(whole)
    seen = [(line["step"], "loss" in line) for line in lines(killed)]
    assert len(seen) == len(set(seen)) and seen == sorted(seen, key=lambda x: (x[0], not x[1])), "a line twice"
    assert state_bytes(killed) == state_bytes(whole)
    kept = checkpoints(killed)
    assert kept == checkpoints(whole), "another checkpoint is kept as the best"
    tested = {line["step"]: line["test_error"] for line in lines(whole) if "test_error" in line}
    saved = [step for step in tested if fields.get("early_stopping.patience") or step % FIELDS["checkpoint_every"] == 0]
    assert min(saved, key=tested.__getitem__) in kept
    events = sorted((killed / "tensorboard").iterdir())
    assert events == sorted(events, key=lambda path: path.stat().st_mtime), "TensorBoard reads them by their names"
    skipped = [path.read_text() if (path := w / "skipped.json").exists() else "" for w in (killed, whole)]
    assert skipped[0] == skipped[1]
    return steps


def train_up_to(
    workdir: Path, steps: int, fields: Mapping[str, object] = MappingProxyType({}),
    variables: Mapping[str, str] = MappingProxyType({}),
) -> None:  # fmt: skip
    """Trains on until step `steps` is seen to be done, and stops there with SIGTERM's clean save."""
    code = (
        "import signal, sys\n"
        "from resnet_jax.__main__ import main\n"
        "from resnet_jax.training import progress\n"
        "from tests.training.interruptions import Signals\n"
        f"progress.make_progress = lambda: Signals({steps}, signal.SIGTERM)\n"
        "sys.exit(main(sys.argv[1:]))\n"
    )
    arguments = command(workdir, **fields)[3:]
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments], capture_output=True, text=True, cwd=ROOT,
        env=environment(workdir) | variables,
    )  # fmt: skip
    assert done.returncode == 75, (done.returncode, done.stderr)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    began = time.monotonic()
    steps = 0
    for fields in ({}, OPTIONS):
        with tempfile.TemporaryDirectory() as folder:
            steps += compare(Path(folder), options.kills // 2, options.seed, fields=fields)
    print(
        f"{2 * (options.kills // 2)} kills in {steps} steps, {time.monotonic() - began:.0f} s: parameters, statistics, "
        "optimiser and every line of metrics.jsonl bitwise those of the run that was left alone"
    )


if __name__ == "__main__":
    main()
