"""Estimates how long runs take, from the records of finished ones or from a few timed steps."""

import json
import statistics
import subprocess
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from experiments import ROOT
from resnet_jax.config import config_hash, to_dict
from resnet_jax.errors import UserError
from resnet_jax.training.run_folder import RunFolder

#: Seconds that timing one net may take, with its compilation.
MEASURE_SECONDS = 180

#: The fields of `hardware` that decide how fast a run is.
SAME = ("platform", "device", "devices", "hosts", "cpu", "cpu_cores", "convolutions")


class Rates:
    """Images per second of nets in training, without evaluations and compilation."""

    def __init__(self) -> None:
        self._rates: dict[str, dict[str, float]] = {}  # by net, and by run
        self._sources: dict[str, str] = {}

    def add(self, config: ConfigDict, images_per_second: float, source: str) -> None:
        """Notes a run's rate, instead of its earlier one. Of several runs of a net the median counts."""
        self._rates.setdefault(net_key(config), {})[config_hash(config)] = images_per_second
        self._sources.setdefault(net_key(config), source)

    def seconds(self, config: ConfigDict, steps: int) -> float | None:
        """Returns how long `steps` steps take, or None for a net whose rate is not known."""
        rates = self._rates.get(net_key(config))
        return None if rates is None else steps * config.batch_size / statistics.median(rates.values())

    def source(self, config: ConfigDict) -> str:
        """Returns where the rate is from."""
        return self._sources.get(net_key(config), "unknown")


def net_key(config: ConfigDict) -> str:
    """Returns the same text for configs whose steps take equally long: same net, set and batch."""
    fields = to_dict(config)
    return json.dumps(
        [fields["model"], fields["data"]["name"], fields["batch_size"], fields["accumulate"], fields["dtype"]]
    )


def add_records(rates: Rates, out: Path, hardware: Mapping[str, Any] | None) -> None:
    """Adds the rates of the finished runs under `out`; if `hardware` is given, of those on such hardware."""
    for path in sorted(out.glob("*/result.json")):
        record = RunFolder(path.parent)
        try:
            result, config = record.result(), record.config()
        except UserError:  # damaged: the plan says so
            continue
        if result is not None and (hardware is None or same_hardware(result.hardware, hardware)):
            rates.add(config, result.images_per_second, "records")


def same_hardware(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    """Returns whether runs on these two can be compared for speed."""
    return all(one.get(name) == other.get(name) for name in SAME)


def measure(rates: Rates, configs: Iterable[ConfigDict], env: Mapping[str, str]) -> None:
    """Times a few steps of each net whose rate is not known, in a process of its own.

    Args:
      rates: where they are added; nothing is, if timing fails or takes too long.
      configs: of the nets.
      env: environment of the process, the same as a run's.
    """
    for config in configs:
        if rates.seconds(config, 1) is not None:
            continue
        try:
            asked = subprocess.run(
                [sys.executable, "-m", "experiments.time_steps"], input=json.dumps(to_dict(config)), cwd=ROOT,
                env=dict(env), capture_output=True, text=True, timeout=MEASURE_SECONDS,
            )  # fmt: skip
        except subprocess.TimeoutExpired:
            continue
        if asked.returncode == 0:
            found = json.loads(asked.stdout.splitlines()[-1])
            rates.add(config, found["images_per_second"], f"{found['steps']} steps, timed")


def duration(seconds: float) -> str:
    """Returns a time in a fitting unit: 12 s, 3 min, 4.5 h or 3.2 days."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    if seconds < 90 * 60:
        return f"{seconds / 60:.0f} min"
    if seconds < 48 * 3600:
        return f"{seconds / 3600:.1f} h"
    return f"{seconds / 86400:.1f} days"
