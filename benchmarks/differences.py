"""Measures how a run differs with the number of devices, processes and micro-batches; exact arithmetic would not.

    python -m benchmarks differences --write

ResNet-20 on digits, with batch-norm groups of 8 so that accumulation should make no difference; each case has processes
of its own.
"""

import dataclasses
import json
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import ROOT, note
from benchmarks.docs_tables import table
from benchmarks.local_processes import Job, last_line
from resnet_jax.errors import UserError
from resnet_jax.evaluation.open_run import open_run


@dataclasses.dataclass(frozen=True)
class Case:
    """One way to take the same steps."""

    devices: int = 1
    processes: int = 1
    accumulate: int = 1

    @property
    def name(self) -> str:
        return f"devices{self.devices}-processes{self.processes}-accumulate{self.accumulate}"


#: The first is what the others are compared with.
CASES = (
    Case(),
    *(Case(devices=n) for n in (2, 4, 8)),
    *(Case(devices=8, processes=n) for n in (2, 4)),
    *(Case(accumulate=n) for n in (2, 4)),
    Case(devices=8, processes=4, accumulate=4),
)

#: The relative precision of float32. One parameter is moved by it, to see how far the smallest difference grows.
NUDGE = 2.0**-23

HEADINGS = ("devices", "processes", "micro-batches", "loss, 1 step", "10 steps", "{steps} steps", "parameters",
            "test error (%)")  # fmt: skip


def run(folder: Path, steps: int, cases: Sequence[Case] = CASES) -> None:
    """Trains what is missing under `folder`.

    Raises:
      UserError: if one of them fails, with the last line that it printed.
    """
    for case in cases:
        note(f"{case.devices} devices in {case.processes} processes, {case.accumulate} micro-batches")
        fields = {
            "steps": steps, "log_every": 1, "eval_every": steps, "checkpoint_every": steps,
            "accumulate": case.accumulate, "model.bn_group_size": 8,
        }  # fmt: skip
        arguments = ["train", f"--config={ROOT}/configs/digits.py:resnet20", f"--workdir={folder / case.name}"]
        arguments += [f"--config.{name}={value}" for name, value in fields.items()]
        ended = Job(arguments, folder / case.name, case.processes, case.devices, folder / "cache").wait(1800)
        if any(e.status for e in ended):
            raise UserError(f"{case} failed: {last_line(ended[0].output)}")


def rows(folder: Path, cases: Sequence[Case] = CASES) -> list[list[str]]:
    """Returns a row for each case: largest relative difference of a loss, largest absolute one of a parameter."""
    first_losses, first_params, _ = _read(folder / cases[0].name)
    found = []
    for case in cases:
        losses, params, error = _read(folder / case.name)
        cells = _cells(losses, params, first_losses, first_params) if case != cases[0] else ["-"] * 4
        found.append([str(case.devices), str(case.processes), str(case.accumulate), *cells, f"{error:.2f}"])
    return found


def nudged(folder: Path) -> list[str]:
    """Returns the row of the first case with one parameter of the stem moved by one unit in the last place."""
    import jax

    from resnet_jax.training.run_record import RunRecord
    from resnet_jax.training.trainer import make_trainer

    first_losses, first_params, _ = _read(folder / CASES[0].name)
    trainer = make_trainer(RunRecord(folder / CASES[0].name).config(), jax.devices("cpu")[:1])
    state = trainer.init()
    kernel = state.params["stem"]["conv"]["kernel"]
    stem = {**state.params["stem"], "conv": {"kernel": kernel.at[2, 0, 0, 7].mul(1 + NUDGE)}}
    state, losses = state.replace(params={**state.params, "stem": stem}), []
    for step in range(trainer.config.steps):
        inputs = trainer.pipeline.train_inputs(step, 1)
        state, metrics = trainer.train_step(state, trainer.pipeline.train, inputs)
        losses.append(float(metrics["loss"][0]))
    error = trainer.evaluate(state)["test_error"]
    params = [np.asarray(leaf) for leaf in jax.tree.leaves(state.params)]
    cells = _cells(np.array(losses), params, first_losses, first_params)
    return ["1, a weight moved by 1 ulp", "1", "1", *cells, f"{error:.2f}"]


def _cells(
    losses: np.ndarray, params: Sequence[np.ndarray], first_losses: np.ndarray, first_params: Sequence[np.ndarray]
) -> list[str]:
    relative = np.abs(losses - first_losses) / np.abs(first_losses)
    moved = max(np.abs(a - b).max() for a, b in zip(params, first_params, strict=True))
    return [*(f"{relative[:n].max():.1e}" for n in (1, 10, len(losses))), f"{moved:.1e}"]


def _read(workdir: Path) -> tuple[np.ndarray, list[np.ndarray], float]:
    """Returns the losses of all steps, the final parameters and the test error."""
    import jax

    lines = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    params = [np.asarray(leaf) for leaf in jax.tree.leaves(open_run(workdir).variables["params"])]
    return np.array([x["loss"] for x in lines if "loss" in x]), params, lines[-1]["test_error"]


def measure(steps: int) -> dict[str, Any]:
    """Returns `steps` and the `rows` of the table."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        run(folder, steps)
        return {"steps": steps, "rows": [*rows(folder), nudged(folder)]}


def report(found: dict[str, Any]) -> str:
    """Returns the table, and what its columns mean."""
    steps = found["steps"]
    body = table([heading.format(steps=steps) for heading in HEADINGS], found["rows"])
    return (
        f"{body}\n\nLoss: largest relative difference from the first row, up to that step; parameters: largest "
        f"absolute difference after {steps} steps."
    )
