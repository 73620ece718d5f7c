"""Estimates how long runs take, from the records of finished ones."""

import json
import statistics
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from resnet_jax.config import config_hash, to_dict
from resnet_jax.errors import UserError
from resnet_jax.training.run_folder import RunFolder

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

    def total(self, runs: Iterable[tuple[ConfigDict, int]]) -> tuple[float, int]:
        """Returns the seconds that runs take, one after another, and how many of them are of unknown rate.

        Args:
          runs: config and steps of each.
        """
        found = [self.seconds(config, steps) for config, steps in runs if steps]
        return sum(seconds for seconds in found if seconds is not None), found.count(None)

    def source(self, config: ConfigDict) -> str:
        """Returns where the rate is from."""
        return self._sources.get(net_key(config), "unknown")


def net_key(config: ConfigDict) -> str:
    """Returns the same text for configs whose steps take equally long: same net, set and batch."""
    fields = to_dict(config)
    return json.dumps(
        [fields["model"], fields["data"]["name"], fields["batch_size"], fields["accumulate"], fields["dtype"]]
    )


def recorded_rates(out: Path, hardware: Mapping[str, Any] | None = None) -> Rates:
    """Returns the rates of the finished runs under `out`; if `hardware` is given, of those on such hardware."""
    rates = Rates()
    for path in sorted(out.glob("*/result.json")):
        record = RunFolder(path.parent)
        try:
            result, config = record.result(), record.config()
        except UserError:  # damaged: the plan says so
            continue
        if result is not None and (hardware is None or same_hardware(result.hardware, hardware)):
            rates.add(config, result.images_per_second, "records")
    return rates


def same_hardware(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    """Returns whether runs on these two can be compared for speed."""
    return all(one.get(name) == other.get(name) for name in SAME)


def duration(seconds: float) -> str:
    """Returns a time in a fitting unit: 12 s, 3 min, 4.5 h or 3.2 days."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    if seconds < 90 * 60:
        return f"{seconds / 60:.0f} min"
    if seconds < 48 * 3600:
        return f"{seconds / 3600:.1f} h"
    return f"{seconds / 86400:.1f} days"
