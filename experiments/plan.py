"""Which runs a table or figure consists of, and how far each of them is.

Nothing here touches an accelerator: the process that plans and launches leaves all devices to the runs.
"""

import dataclasses
import enum
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from experiments.registry import Experiment, Row, paper_seeds, row_config, run_folder, runnable
from resnet_jax.config import config_hash, model_overrides, validate_config
from resnet_jax.data.imagenet import STREAMED
from resnet_jax.errors import UserError
from resnet_jax.models.registry import create_model
from resnet_jax.training.record import CHECKPOINTS, RunRecord

#: Written beside a run's record when it failed, and removed when the run begins again.
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


@dataclasses.dataclass(frozen=True, eq=False)
class Trial:
    """One run to be carried out: a config with its seed.

    Attributes:
      config: of the run.
      folder: its record's.
      row: name of the first row that it belongs to.
    """

    config: ConfigDict
    folder: Path
    row: str

    @property
    def name(self) -> str:
        """As a reader is shown it: resnet20 seed 3."""
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
      step: of the newest checkpoint, or all steps of a run that is done.
      note: why it failed, where it did.
    """

    state: State
    step: int
    note: str = ""


@dataclasses.dataclass(frozen=True)
class Line:
    """A row of a table or figure with its runs by seed. A run that an earlier line has as well is shared.

    Attributes:
      experiment: name of the table or figure.
      row: the row.
      trials: its runs, seed 0 first.
      own: those of them that no earlier line has.
    """

    experiment: str
    row: Row
    trials: tuple[Trial, ...]
    own: tuple[Trial, ...]


@dataclasses.dataclass(frozen=True)
class Plan:
    """All rows, and all runs, each once."""

    lines: tuple[Line, ...]

    @property
    def trials(self) -> list[Trial]:
        """Seed by seed, so that every row has its first run before any has its second."""
        seeds = max(len(line.trials) for line in self.lines)
        ordered: dict[Path, Trial] = {}
        for seed in range(seeds):
            for line in self.lines:
                for trial in line.trials[seed : seed + 1]:  # rows differ in how many runs the paper made
                    ordered.setdefault(trial.folder, trial)
        return list(ordered.values())


def make_plan(
    experiments: Sequence[Experiment],
    out: Path,
    *,
    rows: Sequence[str] = (),
    seeds: int | None = None,
    steps_scale: float = 1.0,
    changes: Mapping[str, Any] | None = None,
) -> Plan:
    """The runs of tables and figures.

    Args:
      experiments: one or several; a run that several have in common is planned once.
      out: folder of the run folders.
      rows: names of the rows that are wanted, all by default.
      seeds: runs of each row, with seeds 0, 1, ...; as many as the paper made by default.
      steps_scale, changes: see `registry.row_config`.

    Raises:
      UserError: for a row that there is not, one whose config cannot be run, and where nothing is left to run.
    """
    lines: list[Line] = []
    known: dict[Path, Trial] = {}
    for experiment in experiments:
        for row in runnable(experiment, rows):
            trials, own = [], []
            for seed in range(paper_seeds(experiment, row) if seeds is None else seeds):
                config = _config(row, seed, steps_scale, changes)
                folder = run_folder(out, config)
                if folder not in known:
                    known[folder] = Trial(config, folder, row.name)
                    own.append(known[folder])
                trials.append(known[folder])
            lines.append(Line(experiment.name, row, tuple(trials), tuple(own)))
    if not lines:
        raise UserError(f"{', '.join(e.name for e in experiments)} has no row that can be run")
    return Plan(tuple(lines))


def _config(row: Row, seed: int, steps_scale: float, changes: Mapping[str, Any] | None) -> ConfigDict:
    try:
        config = row_config(row, seed, steps_scale, changes)
        validate_config(config)
        create_model(config.model.name, **model_overrides(config))  # names the fields that do not go together
    except (TypeError, ValueError, KeyError) as error:  # ml_collections' for a value of another type
        raise UserError(f"row {row.name}: {' '.join(str(error).split())}") from error
    except UserError as error:
        raise UserError(f"row {row.name}: {error}") from error
    return config


def packs(trials: Sequence[Trial], seeds_at_once: int) -> list[tuple[Trial, ...]]:
    """Runs in groups that go in one program: at most so many, which differ in their seed alone.

    One that failed goes alone: what is wrong with it must not end others. So do runs that cannot share a program: on
    sets that stream, and with a profiler's trace.

    Args:
      trials: in the order in which to start them; a group stands where its first does.
      seeds_at_once: see above.
    """
    groups: list[list[Trial]] = []
    open_group: dict[str, list[Trial]] = {}
    for trial in trials:
        alone = trial.config.data.name in STREAMED or trial.config.profile_steps
        if seeds_at_once > 1 and (alone or status(trial).state is State.FAILED):
            groups.append([trial])
            continue
        config = trial.config.copy_and_resolve_references()
        config.seed = 0
        group = open_group.get(key := config_hash(config))
        if group is None or len(group) == seeds_at_once:
            group = open_group[key] = []
            groups.append(group)
        group.append(trial)
    return [tuple(group) for group in groups]


def status(trial: Trial) -> Status:
    """How far a run is, from its folder alone."""
    record = RunRecord(trial.folder)
    step = newest_checkpoint(trial.folder)
    try:
        if record.is_same(trial.config) and (result := record.result()) is not None:
            if result.config_hash != config_hash(trial.config):
                raise UserError(f"{trial.folder}/result.json is of another config: {result.config_hash}")
            return Status(State.DONE, trial.steps)
    except UserError as error:
        return Status(State.FAILED, step, str(error))
    failure = trial.folder / FAILURE
    if failure.exists():
        return Status(State.FAILED, step, failure.read_text().strip())
    return Status(State.PART if step else State.MISSING, step)


def newest_checkpoint(folder: Path) -> int:
    """Step of a run's newest whole checkpoint, 0 without one.

    Read from the names alone: an unfinished checkpoint has no name of digits yet.
    """
    return max((int(entry.name) for entry in (folder / CHECKPOINTS).glob("*") if entry.name.isdigit()), default=0)
