"""Which runs a table or figure consists of, and how far each of them is.

Nothing here opens an accelerator: the process that plans and launches leaves all devices to the runs.
"""

import dataclasses
import enum
import itertools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from experiments.experiment import Experiment, Row, asks_for_weights, paper_seeds, row_config, run_folder, runnable
from experiments.run_index import RunIndex, as_asked
from resnet_jax.config import config_hash, model_overrides
from resnet_jax.errors import UserError
from resnet_jax.models.registry import create_model
from resnet_jax.training.config_checks import validate_config
from resnet_jax.training.result import changed
from resnet_jax.training.run_record import CHECKPOINTS, RunRecord

#: Written into a run's folder when it fails, and removed when the run begins again.
FAILURE = "failed.txt"


class State(enum.StrEnum):
    """How far a run is.

    DONE: it has its result. PART: it has checkpoints and goes on from the newest. MISSING: neither. FAILED: it ended
    with an error, or its folder cannot be read; the next launch tries it again.
    """

    DONE = "done"
    PART = "part done"
    MISSING = "missing"
    FAILED = "failed"


@dataclasses.dataclass(frozen=True)
class Trial:
    """One run to be carried out: a config with its seed, the folder of its record, and a row that has it.

    The folder alone says whether two are the same run.
    """

    config: ConfigDict = dataclasses.field(compare=False)
    folder: Path
    row: str = dataclasses.field(compare=False)

    @property
    def name(self) -> str:
        """What a reader is shown: "resnet20 seed 3"."""
        return f"{self.row} seed {self.config.seed}"

    @property
    def steps(self) -> int:
        """Steps of the whole run."""
        return self.config.steps


@dataclasses.dataclass(frozen=True)
class Status:
    """What there is of a run.

    Attributes:
      state: see `State`.
      step: of the newest checkpoint, or all steps of a finished run.
      note: why it failed.
    """

    state: State
    step: int
    note: str = ""


@dataclasses.dataclass(frozen=True)
class Line:
    """A row of a table or figure with its runs, seed 0 first."""

    experiment: Experiment
    row: Row
    trials: tuple[Trial, ...]


@dataclasses.dataclass(frozen=True)
class Plan:
    """All rows, and all runs, each once, in the order in which they begin."""

    lines: tuple[Line, ...]
    trials: tuple[Trial, ...]

    def own(self) -> list[list[Trial]]:
        """Returns the runs of each line that no earlier line has."""
        shown: set[Trial] = set()
        found = []
        for line in self.lines:
            found.append([trial for trial in line.trials if trial not in shown])
            shown.update(line.trials)
        return found

    def statuses(self) -> dict[Path, Status]:
        """Returns how far every run is, by its folder."""
        return {trial.folder: status(trial) for trial in self.trials}


def make_plan(
    experiments: Sequence[Experiment],
    out: Path,
    *,
    rows: str = "",
    seeds: int | None = None,
    steps_scale: float = 1.0,
    changes: Mapping[str, Any] | None = None,
    index: RunIndex | None = None,
) -> Plan:
    """Returns the runs of tables and figures; a run that several have in common is planned once.

    Args:
      experiments: the tables and figures.
      out: folder of the folders of new runs.
      rows: names or labels of the rows that are wanted, all by default; see `experiment.runnable`.
      seeds: runs of each row, with seeds 0, 1, ...; as many as the paper made by default.
      steps_scale, changes: see `experiment.row_config`.
      index: runs that there are already: they are planned in their own folders, whatever these are called.

    Raises:
      UserError: for an unknown row, one whose config cannot be run, and where there is nothing to run.
    """
    lines: list[Line] = []
    for experiment in experiments:
        for row in runnable(experiment, rows):
            trials = []
            first = _config(row, steps_scale, changes)  # checked once: the others differ in their seed alone
            there = {} if index is None else {one.seed: one for one in index.find(row, steps_scale, changes)}
            for seed in range(paper_seeds(experiment, row) if seeds is None else seeds):
                config = first.copy_and_resolve_references()
                config.seed = seed
                folder = run_folder(out, config)
                if found := there.get(seed):  # it goes on as it began
                    config.eval_every, folder = found.eval_every, found.folder
                trials.append(Trial(config, folder, row.name))
            lines.append(Line(experiment, row, tuple(trials)))
    if not lines:
        raise UserError(f"{', '.join(e.name for e in experiments)} has no row that can be run")
    # Seed by seed, so that every row has its first run before any has its second; rows differ in how many they have.
    by_seed = itertools.zip_longest(*(line.trials for line in lines))
    return Plan(tuple(lines), tuple(dict.fromkeys(trial for trials in by_seed for trial in trials if trial)))


def _config(row: Row, steps_scale: float, changes: Mapping[str, Any] | None) -> ConfigDict:
    config = row_config(row, 0, steps_scale, changes)
    try:
        validate_config(config)
        create_model(config.model.name, **model_overrides(config))  # names the fields that do not go together
    except (TypeError, ValueError, KeyError) as error:  # ml_collections raises these for a value of another type
        raise UserError(f"row {row.name}: {' '.join(str(error).split())}") from error
    except UserError as error:
        raise UserError(f"row {row.name}: {error}") from error
    return config


def status(trial: Trial) -> Status:
    """Returns how far a run is, read from its folder alone."""
    record = RunRecord(trial.folder)
    step = newest_checkpoint(trial.folder)
    config = trial.config
    try:
        if (trial.folder / "config.json").exists():
            there = record.config()  # with what it took from its weights, if it began with any
            allowed = there.init_hash is None or asks_for_weights(config)
            config = there if allowed and config_hash(as_asked(there)) == config_hash(config) else config
        if record.holds(config) and (result := record.result()) is not None:
            if result.config_hash != config_hash(config):
                raise UserError(f"{trial.folder}/result.json is of another config: {result.config_hash}")
            if result.changes:
                raise UserError(f"{trial.folder} is no run of this row: {changed(result.changes)}; move it away")
            return Status(State.DONE, trial.steps)
    except UserError as error:
        return Status(State.FAILED, step, str(error))
    failure = trial.folder / FAILURE
    if failure.exists():
        return Status(State.FAILED, step, failure.read_text().strip())
    return Status(State.PART if step else State.MISSING, step)


def newest_checkpoint(folder: Path) -> int:
    """Returns the step of a run's newest whole checkpoint, 0 without one.

    It is read from the names alone: the name of an unfinished checkpoint is not all digits.
    """
    return max((int(entry.name) for entry in (folder / CHECKPOINTS).glob("*") if entry.name.isdigit()), default=0)
