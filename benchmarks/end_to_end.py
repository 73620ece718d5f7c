"""Measures what the loop around the step costs: images per second of `fit` and of the bare step, in turn.

python -m benchmarks end_to_end --write
"""

import json
import statistics
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from ml_collections import ConfigDict

from benchmarks import note
from benchmarks.docs_tables import table
from benchmarks.paired_timing import ratio
from benchmarks.resnet_jax_step import steps_per_dispatch
from configs.digits import get_config
from resnet_jax.training.loop import fit
from resnet_jax.training.stepper import Stepper
from resnet_jax.training.trainer import Trainer, make_trainer

#: Names of the two rows.
BARE, FIT = "the bare step", "`fit`, as its metrics say"


def config_of(net: str, steps: int) -> ConfigDict:
    """Returns the config of a digits run that evaluates and saves once, at its end."""
    config = get_config(net)
    every = {"log_every": max(1, steps // 10), "eval_every": steps, "checkpoint_every": steps}
    config.update({"steps": steps, **every})
    return config


def of_metrics(workdir: Path) -> float:
    """Returns the median of `images_per_second` over a run's training lines after the first."""
    lines = map(json.loads, (workdir / "metrics.jsonl").read_text().splitlines())
    rates = [line["images_per_second"] for line in lines if "images_per_second" in line]
    return statistics.median(rates[1:] or rates)


def bare(trainer: Trainer, compiled: dict, steps: int) -> float:
    """Returns images per second of so many calls of the compiled step, with their inputs on the device beforehand."""
    import jax

    count = steps_per_dispatch(trainer)
    pipeline, state = trainer.pipeline, trainer.init()
    inputs = jax.device_put([pipeline.train_inputs(i * count, count) for i in range(max(1, steps // count))])
    (program,) = compiled.values()
    state, metrics = program(state, pipeline.train, inputs[0])
    jax.block_until_ready(metrics)
    began = time.perf_counter()
    for one in inputs:
        state, metrics = program(state, pipeline.train, one)
    jax.block_until_ready(metrics)
    return len(inputs) * count * trainer.config.batch_size / (time.perf_counter() - began)


def measure(net: str, steps: int, rounds: int) -> dict[str, list[float]]:
    """Returns images per second of the bare step and of `fit`, of each round."""
    trainer = make_trainer(config_of(net, steps))
    stepper = Stepper(trainer)
    stepper.advance(trainer.init(), 0, steps_per_dispatch(trainer))
    list(stepper.collect())
    found: dict[str, list[float]] = {BARE: [], FIT: []}
    for number in range(rounds):
        note(f"round {number + 1} of {rounds}")
        with tempfile.TemporaryDirectory() as folder:
            fit(config_of(net, steps), folder)
            found[FIT].append(of_metrics(Path(folder)))
        found[BARE].append(bare(trainer, stepper.compiled, steps))
    return found


def report(found: Mapping[str, Sequence[float]]) -> str:
    """Returns the table."""
    rows = []
    for name, rates in found.items():
        share = "1.00" if name == BARE else f"{ratio(rates, found[BARE]):.3f}"
        rows.append([name, f"{statistics.median(rates):,.0f}", f"{min(rates):,.0f} - {max(rates):,.0f}", share])
    return table(["ResNet on digits", "images/s (median)", "least - most", "by the bare step's"], rows)
