"""Estimates how long runs take, from the records of finished ones and from the multiply-adds of their nets."""

import functools
import json
import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from experiments import ROOT
from experiments.run_index import index_runs
from resnet_jax.config import config_hash, model_overrides, to_dict
from resnet_jax.errors import UserError
from resnet_jax.models.registry import create_model, get_variant
from resnet_jax.models.summary import summarize
from resnet_jax.training.run_record import RunRecord

#: The fields of `hardware` that decide how fast a run is.
SAME = ("platform", "device", "devices", "hosts", "cpu", "cpu_cores", "convolutions")

#: Records that are committed.
PUBLISHED = ROOT / "results"

#: Side in pixels of the images of sets that have one size; others have that of the config.
SIDES = {"digits": 8, "cifar10": 32, "cifar100": 32, "synthetic": 32}

#: A net with more units is counted from one with so many in each stage.
FEW_UNITS = 2


class Rates:
    """Images per second of nets in training, without evaluations and compilation."""

    def __init__(self) -> None:
        self._rates: dict[str, dict[str, float]] = {}  # by net, and by run
        self._sources: dict[str, str] = {}
        self._configs: dict[str, ConfigDict] = {}

    def add(self, config: ConfigDict, images_per_second: float, source: str) -> None:
        """Notes a run's rate, instead of its earlier one. Of several runs of a net the median counts."""
        self._rates.setdefault(net_key(config), {})[config_hash(config)] = images_per_second
        self._sources.setdefault(net_key(config), source)
        self._configs.setdefault(net_key(config), config)

    def seconds(self, config: ConfigDict, steps: int) -> float | None:
        """Returns how long `steps` steps take, or None for a net whose rate is not known."""
        rates = self._rates.get(net_key(config))
        return None if rates is None else steps * config.batch_size / statistics.median(rates.values())

    def add_by_operations(self, configs: Iterable[ConfigDict], whose: str = "") -> None:
        """Adds rates for nets that have none, from the known net that is nearest to each in multiply-adds.

        On a device that a narrow net does not fill, a step takes time for each layer rather than for each multiply-add:
        a deeper net is taken to be slower by the larger of the two ratios.

        Args:
          configs: of the nets.
          whose: the known rates are: "another machine's", in the words for the reader.
        """
        known = [(key, config, operations(config)) for key, config in self._configs.items()]
        for config in configs:
            if not known or net_key(config) in self._rates:
                continue
            depth, flops = operations(config)
            key, nearest, (its_depth, its_flops) = min(
                known, key=lambda one: (one[1].data.name != config.data.name, abs(math.log(flops / one[2][1])))
            )
            slower = max(flops / its_flops, depth / its_depth) if depth > its_depth else flops / its_flops
            rate = statistics.median(self._rates[key].values()) / slower
            name = nearest.model.name.removeprefix("cifar_")
            self.add(config, rate, f"multiply-adds and {whose} {name}".replace("  ", " "))

    @property
    def known(self) -> bool:
        """Whether there is any rate."""
        return bool(self._rates)

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


@functools.cache
def _counted(name: str, overrides: str, side: int) -> tuple[int, int]:
    """Returns depth and multiply-adds; each unit of a stage but the first adds the same, so that few are traced."""
    fields = {k: tuple(v) if isinstance(v, list) else v for k, v in json.loads(overrides).items()}
    sizes = tuple(fields.get("stage_sizes") or get_variant(name).fields.get("stage_sizes") or ())
    few = tuple(min(size, FEW_UNITS) for size in sizes)
    if few == sizes:  # also VGG's
        net = summarize(create_model(name, **fields), name, side)
        return net.depth, net.flops

    def count(stages: tuple[int, ...]) -> tuple[int, int]:
        return _counted(name, json.dumps(fields | {"stage_sizes": stages}), side)

    depth, flops = base = count(few)
    for i, (size, short) in enumerate(zip(sizes, few, strict=True)):
        if size > short:
            one_less = count(few[:i] + (short - 1,) + few[i + 1 :])
            depth += (size - short) * (base[0] - one_less[0])
            flops += (size - short) * (base[1] - one_less[1])
    return depth, flops


def operations(config: ConfigDict) -> tuple[int, int]:
    """Returns the weighted layers of a config's net, and its multiply-adds for one image."""
    side = SIDES.get(config.data.name) or config.data.image_size
    return _counted(config.model.name, json.dumps(model_overrides(config), sort_keys=True), side)


def recorded_rates(
    roots: Path | Sequence[Path], hardware: Mapping[str, Any] | None = None, same: Sequence[str] = SAME
) -> Rates:
    """Returns the rates of the finished runs under some folders, however deep.

    Args:
      roots: the folders; one that does not exist holds no runs.
      hardware: only runs on such hardware count; None: all.
      same: the fields in which theirs must be like it.
    """
    rates = Rates()
    for root in [roots] if isinstance(roots, Path) else roots:
        found = sorted({run.folder for runs in index_runs(root).runs.values() for run in runs})
        for folder in found:
            record = RunRecord(folder)
            try:
                result, config = record.result(), record.config()
            except UserError:  # damaged: the plan says so
                continue
            if result is not None and (hardware is None or same_hardware(result.hardware, hardware, same)):
                rates.add(config, result.images_per_second, "records")
    return rates


def estimated_rates(roots: Sequence[Path], hardware: Mapping[str, Any], configs: Sequence[ConfigDict]) -> Rates:
    """Returns rates of nets on some hardware, as well as they are known without training a step.

    They are those of records on such hardware, else from the multiply-adds and a record of another net; without any
    record on such hardware, from those of another machine with the same kind of device.

    Args:
      roots: folders of runs.
      hardware: as in result.json.
      configs: of the nets that rates are wanted of.
    """
    rates = recorded_rates(roots, hardware)
    whose = ""
    if not rates.known:
        whose = "another machine's"
        rates = recorded_rates(roots, hardware, ("platform", "device"))
    rates.add_by_operations(configs, whose)
    return rates


def same_hardware(one: Mapping[str, Any], other: Mapping[str, Any], same: Sequence[str] = SAME) -> bool:
    """Returns whether runs on these two can be compared for speed: hardware that is alike in some fields."""
    return all(one.get(name) == other.get(name) for name in same)


def duration(seconds: float) -> str:
    """Returns a time in a fitting unit: 12 s, 3 min, 4.5 h or 3.2 days."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    if seconds < 90 * 60:
        return f"{seconds / 60:.0f} min"
    if seconds < 48 * 3600:
        return f"{seconds / 3600:.1f} h"
    return f"{seconds / 86400:.1f} days"
