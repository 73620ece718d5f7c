"""What a table or figure of the papers consists of, and the list of all that there are.

One file per table or figure under experiments/he2015/ and experiments/he2016/ holds an `EXPERIMENT`: its rows and the
paper's numbers, nothing else.
"""

import dataclasses
import importlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from resnet_jax.config import config_hash
from resnet_jax.errors import unknown_name

#: Every table and figure that can be made, in the papers' order.
NAMES: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True)
class Row:
    """One line of a table, or one curve of a figure.

    Attributes:
      name: unique in its table, fit for a file name: "resnet20".
      label: as the paper writes it: "ResNet-20".
      config: a file of configs/ and the net behind its colon, "cifar10:resnet20"; empty for a row that is not ours to
        run (another system's numbers, quoted in the paper).
      changes: fields of that config by dotted name, and their values: what this row is about.
      paper: the paper's numbers under the experiment's `columns`, None where it prints none.
      note: what the paper remarks on the row.
      group: the panel of a figure that it is drawn in.
    """

    name: str
    label: str
    config: str = ""
    changes: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    paper: tuple[float | None, ...] = ()
    note: str = ""
    group: str = ""


@dataclasses.dataclass(frozen=True)
class Experiment:
    """A table or figure.

    Attributes:
      name: "he2015.table6".
      title: what it shows, in our words.
      columns: headings of the paper's numbers: ("error", "mean", "std").
      metric: the field of `Result` or the name of the evaluation protocol that these are: "test_error".
      protocol: how the paper reports several runs: "best", "median" or "single".
      seeds: how many runs of each row the paper made.
      rows: in the paper's order.
      note: what a reader must know beside it.
    """

    name: str
    title: str
    columns: tuple[str, ...]
    metric: str
    protocol: str
    seeds: int
    rows: tuple[Row, ...]
    note: str = ""


def load(name: str) -> Experiment:
    """The table or figure of that name.

    Raises:
      UserError: for a name that is not in `NAMES`.
    """
    if name not in NAMES:
        raise unknown_name("table or figure", name, NAMES)
    return importlib.import_module(f"experiments.{name}").EXPERIMENT


def row_config(
    row: Row, seed: int = 0, steps_scale: float = 1.0, changes: Mapping[str, Any] | None = None
) -> ConfigDict:
    """The config of one run of a row.

    Args:
      row: a row with a config.
      seed: of the run.
      steps_scale: shrinks the whole schedule: steps, warm-up, and the intervals of logging, evaluation and
        checkpoints. The config's field `steps_scale` says so in every record.
      changes: further fields by dotted name: another set, another folder of data.
    """
    file, _, net = row.config.partition(":")
    config: ConfigDict = importlib.import_module(f"configs.{file}").get_config(net)
    with config.unlocked():
        config.update_from_flattened_dict({**row.changes, **(changes or {})})
    config.seed = seed
    if steps_scale != 1.0:
        config.steps_scale = steps_scale
        config.schedule.warmup_steps = round(config.schedule.warmup_steps * steps_scale)
        for field in ("steps", "log_every", "eval_every", "checkpoint_every"):
            config[field] = max(1, round(config[field] * steps_scale))
    return config


def run_folder(out: Path, config: ConfigDict) -> Path:
    """Where the run of a config lies under `out`; tables and figures that share a run share its folder."""
    return out / f"{config.model.name}-{config.data.name}-seed{config.seed}-{config_hash(config)}"


def runnable(experiment: Experiment, names: Sequence[str] = ()) -> list[Row]:
    """The rows that can be run, or those of them that are named.

    Raises:
      UserError: for a name that no such row has.
    """
    rows = {row.name: row for row in experiment.rows if row.config}
    for name in names:
        if name not in rows:
            raise unknown_name(f"row of {experiment.name}", name, rows)
    return [row for row in rows.values() if not names or row.name in names]
