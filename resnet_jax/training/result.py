"""From a run's lines to its result."""

import datetime
import math
import statistics
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from resnet_jax.config import config_hash
from resnet_jax.training import provenance
from resnet_jax.training.record import Result
from resnet_jax.training.trainer import Trainer


def make_result(
    trainer: Trainer, lines: Sequence[Mapping[str, Any]], *, seconds: float, commit: str, skipped_batches: int,
    stopped_step: int, kept_step: int, runs_at_once: int = 1,
) -> Result:  # fmt: skip
    """The result of a run that has come to its end.

    Args:
      trainer: its parts.
      lines: of metrics.jsonl.
      seconds: that it took, earlier parts included.
      commit: of the source when it started.
      skipped_batches: batches that were left out.
      stopped_step: where training ended.
      kept_step: whose weights are kept; another one with early stopping.
      runs_at_once: how many runs shared the devices in one program.
    """
    config, summary = trainer.config, trainer.summary
    tests = {line["step"]: line["test_error"] for line in lines if "test_error" in line}
    rates = [line["images_per_second"] for line in lines if "images_per_second" in line]
    hardware = provenance.hardware(list(trainer.mesh.devices.flat))
    if runs_at_once > 1:
        hardware["runs_at_once"] = runs_at_once
    epoch = math.ceil(trainer.pipeline.train_size / config.batch_size)
    return Result(
        model=config.model.name,
        dataset=config.data.name,
        config_hash=config_hash(config),
        commit=commit,
        versions=provenance.versions(),
        hardware=hardware,
        finished=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        seed=config.seed,
        steps=config.steps,
        batch_size=config.batch_size,
        seconds=round(seconds, 1),
        images_per_second=round(statistics.median(rates), 1),
        depth=summary.depth,
        params=summary.params,
        flops=summary.flops,
        train_error=last_epoch_error(lines, epoch),
        test_error=tests[kept_step],
        best_test_error=min(tests.values()),
        evaluated_on=trainer.evaluated_on,
        skipped_batches=skipped_batches,
        stopped_step=stopped_step if config.early_stopping.patience else None,
        kept_step=kept_step if config.early_stopping.patience else None,
    )


def last_epoch_error(lines: Sequence[Mapping[str, Any]], epoch: int) -> float:
    """Mean training error in percent of the last `epoch` steps, rounded up to whole training lines."""
    trained = [line for line in lines if "train_error" in line]
    ends = [line["step"] for line in trained]
    widths = np.diff([0, *ends])  # each line averages the steps since the one before
    inside = [i for i, end in enumerate(ends) if end > ends[-1] - epoch]
    return float(np.average([trained[i]["train_error"] for i in inside], weights=widths[inside]))
