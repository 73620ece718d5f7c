"""What a run leaves behind: its result, where the numbers come from, and what its weights need of the data set."""

import dataclasses
import importlib.metadata
import os
import platform
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from resnet_jax.kernels.build import in_use as kernels_in_use

#: Packages that results depend on.
PACKAGES = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy", "tensorflow-datasets")


@dataclasses.dataclass(frozen=True)
class Result:
    """What a finished run came to.

    Attributes:
      model, dataset: names.
      config_hash: same for runs of the same config and seed.
      commit, versions, hardware: see the functions of these names.
      finished: when, UTC, ISO 8601.
      seed, steps, batch_size: of the run.
      seconds: from start to end, with compilation, evaluations and earlier parts of a resumed run.
      images_per_second: median of the training lines; compilation and evaluations do not count.
      depth: weighted layers.
      params: parameters.
      flops: multiply-adds for one image.
      metrics: of the task. `train_...`: of the batches of the last epoch as they were trained on, as in the papers'
        figures. `test_...`: after the last step, or with early stopping of the weights that are kept, which are chosen
        by it. `best_...`: the best of all evaluations; chosen on the test set, so never a result.
      evaluated_on: "test", "validation", or "held_out" for a part of the training set.
      skipped_batches: batches that `on_nan="rollback"` left out; skipped.json names them.
      stopped_step, kept_step: with early stopping, the step that training ended at, and the one whose weights are kept.
      task: `config.task`, which says what the metrics are called.
    """

    model: str
    dataset: str
    config_hash: str
    commit: str
    versions: dict[str, str]
    hardware: dict[str, Any]
    finished: str
    seed: int
    steps: int
    batch_size: int
    seconds: float
    images_per_second: float
    depth: int
    params: int
    flops: int
    metrics: dict[str, float]
    evaluated_on: str
    skipped_batches: int = 0
    stopped_step: int | None = None
    kept_step: int | None = None
    task: str = "classification"

    def to_json(self) -> dict[str, Any]:
        """Returns the record as JSON holds it."""
        return dataclasses.asdict(self)

    @classmethod
    def from_json(cls, record: Mapping[str, Any]) -> "Result":
        """Returns the result that a record holds; fields that this version does not know are left out.

        Records from before there were tasks have a classification's metrics beside the other fields.

        Raises:
          KeyError: naming the fields that the record lacks.
        """
        earlier = ("train_error", "test_error", "best_test_error")
        if "metrics" not in record and all(name in record for name in earlier):
            record = {**record, "metrics": {name: record[name] for name in earlier}}
        fields = dataclasses.fields(cls)
        required = {field.name for field in fields if field.default is dataclasses.MISSING}
        if missing := sorted(required - record.keys()):
            raise KeyError(", ".join(missing))
        return cls(**{field.name: record[field.name] for field in fields if field.name in record})


@dataclasses.dataclass(frozen=True)
class DatasetInfo:
    """What a net's weights need of the data set they were trained on.

    Attributes:
      num_classes: of the set.
      image_shape: (height, width, channels) that is trained on.
      classes: their names, by label; empty if the set has none.
      mean, std: what images are normalised by, of pixels in [0, 1]; see `augment.normalization`.
    """

    num_classes: int
    image_shape: tuple[int, ...]
    classes: tuple[str, ...]
    mean: np.ndarray
    std: np.ndarray

    def to_json(self) -> dict[str, Any]:
        """Returns the record as JSON holds it; float32 comes back as it was."""
        return dataclasses.asdict(self) | {"mean": self.mean.tolist(), "std": self.std.tolist()}

    @classmethod
    def from_json(cls, record: Mapping[str, Any]) -> "DatasetInfo":
        """Returns what a record holds.

        Raises:
          KeyError, TypeError, ValueError: if it is damaged.
        """
        return cls(
            int(record["num_classes"]), tuple(record["image_shape"]), tuple(record["classes"]),
            np.array(record["mean"], np.float32), np.array(record["std"], np.float32),
        )  # fmt: skip


def last_epoch_means(lines: Sequence[Mapping[str, Any]], epoch: int) -> dict[str, float]:
    """Returns the mean training metrics of the last `epoch` steps, rounded up to whole training lines."""
    trained = [line for line in lines if "loss" in line]
    ends = [line["step"] for line in trained]
    widths = np.diff([0, *ends])  # each line averages the steps since the one before
    inside = [i for i, end in enumerate(ends) if end > ends[-1] - epoch]
    names = [name for name in trained[-1] if name.startswith("train_")]
    return {name: float(np.average([trained[i][name] for i in inside], weights=widths[inside])) for name in names}


def commit() -> str:
    """Returns the commit of the source that runs, with "-dirty" if files of it were changed; "unknown" outside git."""
    source = Path(__file__).resolve().parents[2]
    try:
        # Only if this file itself is tracked: an installed package may lie inside somebody else's repository.
        _git(source, "ls-files", "--error-unmatch", str(Path(__file__).resolve()))
        return _git(source, "describe", "--always", "--dirty", "--abbrev=12", "--exclude=*")
    except (OSError, subprocess.SubprocessError):
        return "unknown"


def _git(directory: Path, *arguments: str) -> str:
    command = ["git", "-C", str(directory), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=20).stdout.strip()


def versions() -> dict[str, str]:
    """Returns the versions of Python, this package and those that results depend on."""
    found = {"python": platform.python_version()}
    for package in ("resnet_jax", *PACKAGES):
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            found[package] = "unknown"
    return found


def hardware(devices: Sequence[jax.Device]) -> dict[str, Any]:
    """Returns the devices that a run computes on and the host's processor; on a CPU, also whose layers it uses."""
    found = {
        "platform": devices[0].platform,
        "device": devices[0].device_kind,
        "devices": len(devices),
        "hosts": jax.process_count(),
        "cpu": _cpu_model(),
        "cpu_cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
    }
    if devices[0].platform == "cpu":
        found["convolutions"] = "compiled" if kernels_in_use(devices) else "XLA"
    return found


def _cpu_model() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()
