"""Run folders as training writes them, without training."""

import pytest

from resnet_jax.report.run_data import load_run
from resnet_jax.report.series import make_series
from resnet_jax.training.result import Result
from resnet_jax.training.run_folder import RunFolder

STEPS = 540


def make_result(depth: int = 20, **fields) -> Result:
    values = {
        "model": f"cifar_resnet{depth}",
        "dataset": "digits",
        "config_hash": f"hash{depth}",
        "commit": "0123abc",
        "versions": {"python": "3.12.1", "jax": "0.12.0"},
        "hardware": {"platform": "cpu", "cpu_cores": 2},
        "seed": 7,
        "steps": STEPS,
        "batch_size": 64,
        "seconds": 1234.56,
        "images_per_second": 2411.1,
        "depth": depth,
        "params": 269434,
        "flops": 2516608,
        "metrics": {"train_error": 0.5208333, "test_error": 4.4444444, "best_test_error": 3.3333333},
        "evaluated_on": "test",
        "finished": "2026-01-02T03:04:05+00:00",
    }
    values["metrics"] |= {name: fields.pop(name) for name in list(fields) if name.endswith("_error")}
    return Result(**(values | fields))


@pytest.fixture
def make_run(tmp_path):
    """A run whose errors fall from 90 % to what `fields` (of its Result) say; its record is in runs/LABEL."""

    def make(label, group, depth=20, *, finished=True, folder=None, **fields):
        result = make_result(depth, **fields)
        record = RunFolder(tmp_path / "runs" / (folder or label))
        record.workdir.mkdir(parents=True)
        (record.workdir / "metrics.jsonl").touch()
        for step in range(54, STEPS + 1, 54):
            part = step / STEPS
            train, test = (
                90 + part * (end - 90) for end in (result.metrics["train_error"], result.metrics["test_error"])
            )
            record.append(step, {"loss": 1.0, "train_error": train, "learning_rate": 0.1, "images_per_second": 2400.0})
            if step % 108 == 0:
                record.append(step, {"test_error": test, "test_loss": 1.0})
        if finished:
            record.finish(result)
        return load_run(label, group, record.workdir)

    return make


@pytest.fixture
def four_runs(make_run):
    """The ablation: only plain-56 fails to train."""
    return [
        make_run("plain-20", "plain", 20, train_error=1.8, test_error=2.5),
        make_run("plain-56", "plain", 56, train_error=87.9, test_error=91.1, params=852730),
        make_run("ResNet-20", "residual", 20, train_error=0.4, test_error=2.8),
        make_run("ResNet-56", "residual", 56, train_error=1.6, test_error=1.7, params=852730),
    ]


@pytest.fixture
def series(make_run):
    """plain-20 and ResNet-20 with two seeds, plain-56 with one."""
    return [
        make_series("plain-20", "plain", [make_run("p", "plain", 20, test_error=9.0),
                                          make_run("q", "plain", 20, test_error=8.0)]),
        make_series("plain-56", "plain", [make_run("r", "plain", 56, train_error=7.0, test_error=12.0)]),
        make_series("ResNet-20", "residual", [make_run("s", "residual", 20), make_run("t", "residual", 20)]),
    ]  # fmt: skip
