"""Finds the runs of rows among all run folders, by their configs."""

import dataclasses
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from experiments.experiment import Row, asks_for_weights, row_config
from resnet_jax.config import base_config, config_hash
from resnet_jax.errors import UserError
from resnet_jax.models.detection.detector import Detector
from resnet_jax.training.result import changed
from resnet_jax.training.run_record import RunRecord


@dataclasses.dataclass(frozen=True)
class Found:
    """A run's folder, three fields of its config, and whether it began with weights."""

    folder: Path
    seed: int
    steps_scale: float
    eval_every: int
    from_weights: bool = False


@dataclasses.dataclass(frozen=True)
class RunIndex:
    """All runs under a folder.

    Attributes:
      root: the folder.
      runs: by the `row_hash` of their configs, without what they took from weights.
      unreadable: a sentence for each folder that is left out: its record could not be read, or was changed midway.
    """

    root: Path
    runs: Mapping[str, tuple[Found, ...]]
    unreadable: tuple[str, ...] = ()

    @property
    def scales(self) -> list[float]:
        """The lengths of the runs, the paper's first."""
        scales = {found.steps_scale for runs in self.runs.values() for found in runs}
        return sorted(scales, reverse=True)

    def find(self, row: Row, steps_scale: float = 1.0, changes: Mapping[str, Any] | None = None) -> list[Found]:
        """Returns a row's runs of one length, one for each seed, by seed.

        Args:
          row: a row with a config.
          steps_scale, changes: see `experiment.row_config`.
        """
        by_seed: dict[int, Found] = {}
        config = row_config(row, 0, steps_scale, changes)
        for found in self.runs.get(row_hash(config), ()):
            if found.from_weights and not asks_for_weights(config):
                continue
            kept = by_seed.get(found.seed)
            # Of two records of one run the finished one counts, else the first.
            if kept is None or (not is_finished(kept) and is_finished(found)):
                by_seed[found.seed] = found
        return [by_seed[seed] for seed in sorted(by_seed)]


def seedless_hash(row: Row, steps_scale: float, changes: Mapping[str, Any] | None = None) -> str:
    """Returns a hash that is the same for all seeds of a row."""
    return row_hash(row_config(row, 0, steps_scale, changes))


def row_hash(config: ConfigDict) -> str:
    """Returns the hash by which runs are of one row: neither the seed nor how often a run is evaluated enters.

    Evaluations change nothing of what a run learns, unless they decide when it ends (early stopping).
    """
    alike = config.copy_and_resolve_references()
    alike.seed = 0
    if not config.early_stopping.patience:
        alike.eval_every = base_config().eval_every
    return config_hash(alike)


def as_asked(config: ConfigDict) -> ConfigDict:
    """Returns a run's config as it was before the run took from its weights what it left to them.

    Those are digests, the mean and deviation of pixels, and fields of the net that the weights are of: not those that
    a detector has besides. Without weights it is the config itself.
    """
    if config.init_hash is None:
        return config
    own = {"name", *(field.name for field in dataclasses.fields(Detector))}
    asked = config.copy_and_resolve_references()
    asked.init_hash = asked.detection.proposals_hash = None
    asked.data.mean = asked.data.std = ()
    for field in set(asked.model) - own:
        asked.model[field] = None
    return asked


def is_finished(found: Found) -> bool:
    """Returns whether the run has its result."""
    return (found.folder / "result.json").exists()


def index_runs(root: str | Path) -> RunIndex:
    """Reads the config of every run folder under `root`, and whether all of its record can be read.

    A folder that does not exist holds no runs.

    Raises:
      UserError: if `root` is a file.
    """
    top = Path(root).expanduser()
    if top.exists() and not top.is_dir():
        raise UserError(f"--runs={root} is not a folder")
    runs: dict[str, list[Found]] = {}
    unreadable: list[str] = []
    for folder, subfolders, files in os.walk(top, followlinks=True):
        subfolders.sort()
        if "config.json" not in files:
            continue
        subfolders.clear()  # they are the run's own: checkpoints and events
        try:
            record = RunRecord(folder)
            config, changes = record.config(), record.changes()
            record.result(), record.lines()
        except UserError as error:
            unreadable.append(str(error))
            continue
        if changes:  # no table must take it for a run of its last config
            unreadable.append(f"{folder}: {changed(changes)}")
            continue
        found = Found(Path(folder), config.seed, config.steps_scale, config.eval_every, config.init_hash is not None)
        runs.setdefault(row_hash(as_asked(config)), []).append(found)
    return RunIndex(top, {key: tuple(found) for key, found in runs.items()}, tuple(unreadable))
