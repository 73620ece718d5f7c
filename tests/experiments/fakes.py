"""Run folders of rows as training writes them, without training."""

import json
from pathlib import Path

from ml_collections import ConfigDict

from experiments import registry
from experiments.experiment import RECOMPUTE_BN, Row, row_config, run_folder, runnable
from experiments.scores import paper_protocols
from resnet_jax.config import config_hash
from resnet_jax.training.result import Result
from resnet_jax.training.run_folder import RunFolder

#: Points of a curve.
POINTS = 10

#: What was best on the test set, which no table may show.
BEST = 0.1234


def write_run(
    out: Path, config: ConfigDict, test_error: float, train_error: float = 1.0, depth: int = 20, finished: bool = True,
    evaluated_on: str = "test",
) -> Path:  # fmt: skip
    """A run whose errors fall from 90 % to these; returns its folder."""
    record = RunFolder(run_folder(out, config))
    record.open(config)
    for point in range(1, POINTS + 1):
        part = point / POINTS
        train, test = (90 + part**0.3 * (end - 90) for end in (train_error, test_error))
        step = round(part * config.steps)
        record.append(step, {"loss": 1.0, "train_error": train, "learning_rate": 0.1, "images_per_second": 1000.0})
        record.append(step, {"test_error": test, "test_ap50": test, "test_loss": 1.0})
    if finished:
        record.finish(
            Result(
                model=config.model.name,
                dataset=config.data.name,
                config_hash=config_hash(config),
                commit="0123456789ab",
                versions={"python": "3.12.1", "jax": "0.12.0"},
                hardware={"platform": "cpu", "device": "cpu", "devices": 1, "hosts": 1, "cpu": "Xeon", "cpu_cores": 2},
                finished="2026-01-02T03:04:05+00:00",
                seed=config.seed,
                steps=config.steps,
                batch_size=config.batch_size,
                seconds=123.4,
                images_per_second=1000.0,
                depth=depth,
                params=269722,
                flops=41000000,
                metrics={"train_error": train_error, "best_test_error": BEST, "best_test_ap50": BEST}
                | dict.fromkeys(("test_ap50", "test_ap50_11_point", "test_error"), test_error)
                | {"test_ap": test_error - 20},
                evaluated_on="held_out" if config.data.held_out else evaluated_on,
                task=config.task,
            )
        )
    return record.workdir


def write_row(out: Path, row: Row, errors, scale: float = 1.0, depth: int = 20, **fields) -> list[Path]:
    """A row's runs with these test errors, from seed 0 up, and what else their folders may hold."""
    folders = []
    for seed, error in enumerate(errors):
        folder = write_run(out, row_config(row, seed, scale), error, depth=depth, **fields)
        (folder / "evaluations").mkdir(exist_ok=True)
        for metric, protocol in paper_protocols().items():
            values = {
                "protocol": protocol.name, "shorter_sides": protocol.shorter_sides, "crop": protocol.crop,
                "pool_size": 7 if protocol.fully_convolutional else None,
                "recompute_bn": RECOMPUTE_BN if row.recompute_bn is None else row.recompute_bn,
                "test_error": error + 10, "top5_error": error, "evaluated_on": "test",
            }  # fmt: skip
            (folder / "evaluations" / f"{metric}.json").write_text(json.dumps(values))
        for metric, sides in (("box_refinement", [600]), ("refined_multi_scale", [200, 400, 600, 800, 1000])):
            values = {
                "protocol": metric, "shorter_sides": sides, "evaluated_on": "validation",
                "metrics": {"test_ap50": error + 1, "test_ap": error - 19},
            }  # fmt: skip
            (folder / "evaluations" / f"{metric}.json").write_text(json.dumps(values))
        responses = [{"layer": f"stage1/block{i}/conv1", "std": 1 / i} for i in range(1, depth)]
        (folder / "responses.json").write_text(json.dumps(responses))
        folders.append(folder)
    return folders


def write_experiment(out: Path, name: str, seeds: int = 2) -> None:
    """All runs of a table or figure, with errors near the paper's where it prints any."""
    experiment = registry.load(name)
    for i, row in enumerate(runnable(experiment)):
        base = next((value for value in reversed(row.paper) if value is not None and value > 3), 6 + i / 10)
        write_row(out, row, [base + seed / 10 for seed in range(seeds)], depth=20 + 12 * i,
                  evaluated_on=experiment.evaluated_on)  # fmt: skip
