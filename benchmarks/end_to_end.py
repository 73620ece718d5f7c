"""Measures what the loop around the step costs: images per second of `fit` and of the bare step, in turn.

python -m benchmarks end_to_end --write
"""

import json
import shutil
import statistics
import time
from collections.abc import Callable
from pathlib import Path

from ml_collections import ConfigDict

from benchmarks.docs_tables import table
from benchmarks.paired_timing import ratio
from benchmarks.resnet_jax_step import steps_per_dispatch
from configs.digits import get_config
from resnet_jax.training.loop import fit
from resnet_jax.training.stepper import Stepper
from resnet_jax.training.trainer import Trainer, make_trainer


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


def measure(
    folder: Path, net: str, steps: int, rounds: int, note: Callable[[str], None]
) -> tuple[list[float], list[float]]:
    """Returns images per second of `fit` and of the bare step, of each round."""
    trainer = make_trainer(config_of(net, steps))
    stepper, count = Stepper(trainer), steps_per_dispatch(trainer)
    stepper.advance(trainer.init(), 0, count)
    list(stepper.collect())
    whole, alone = [], []
    for number in range(rounds):
        note(f"round {number + 1} of {rounds}")
        fit(config_of(net, steps), folder / "run")
        whole.append(of_metrics(folder / "run"))
        shutil.rmtree(folder / "run")
        alone.append(bare(trainer, stepper.compiled, steps))
    return whole, alone


def report(whole: list[float], alone: list[float]) -> str:
    """Returns the table."""
    share = ratio(whole, alone)
    rows = [
        [name, f"{statistics.median(rates):,.0f}", f"{min(rates):,.0f} - {max(rates):,.0f}", part]
        for name, rates, part in (
            ("the bare step", alone, "1.00"),
            ("`fit`, as its metrics say", whole, f"{share:.3f}"),
        )
    ]
    return table(["ResNet on digits", "images/s (median)", "least - most", "by the bare step's"], rows)
