"""The description of a table or figure: its rows, what each changes, and the paper's numbers."""

import dataclasses
import importlib
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from resnet_jax.config import config_hash
from resnet_jax.errors import UserError, unknown_name

#: What an experiment's `columns` may be, and their headings. The first three are computed from the net; the next two
#: say how an ImageNet net is shown its images; those of test-dev, whose labels are not public, are the paper's alone;
#: the others are measured.
COLUMNS = {
    "layers": "layers",
    "params": "parameters (M)",
    "flops": "multiply-adds (G)",
    "train_crop": "training crop",
    "test_crop": "test crop",
    "error": "error (%)",
    "mean": "mean (%)",
    "std": "std",
    "top1": "top-1 error (%)",
    "top5": "top-5 error (%)",
    "ap50": "AP at 0.5 (%)",
    "ap": "AP at 0.5 to 0.95 (%)",
    "test_dev_ap50": "test-dev AP at 0.5, paper (%)",
    "test_dev_ap": "test-dev AP at 0.5 to 0.95, paper (%)",
}
COMPUTED = ("layers", "params", "flops")

#: Columns that are measured, and of these the ones where more is better.
MEASURED, HIGHER_IS_BETTER = ("error", "top1", "top5", "ap50", "ap"), ("ap50", "ap")

#: What can be measured in finished runs, by the names behind `python -m resnet_jax analyze`.
ANALYSES = ("responses", "gradients", "surface", "lesion")

#: How an experiment is drawn. "table": a table alone. "curves": training error dashed and test error bold, a panel for
#: each group. "thin_curves": the same with thin lines instead of dashed ones. "train_test": a panel of training errors
#: and one of test errors. "loss_and_error": training loss dashed and test error bold. Others: what an analysis found.
FORMS = ("table", "curves", "thin_curves", "train_test", "loss_and_error", *ANALYSES)

#: How a paper may report several runs of a row. Of ours the same is compared, or for "single" the mean.
PROTOCOLS = ("best", "median", "single")

#: Training images over which batch norm's statistics are averaged for the ImageNet tables. The authors took "a
#: sufficiently large training batch after the training procedure" (README of their models), without its size.
RECOMPUTE_BN = 50_000

#: A shortened run is not evaluated more often than this, in steps: CIFAR's test set would cost more than the training.
_EVAL_EVERY = 40


@dataclasses.dataclass(frozen=True)
class Row:
    """A line of a table, or a curve of a figure.

    Attributes:
      name: unique in its table, fit for a file name: "resnet20".
      label: as the paper writes it: "ResNet-20".
      config: a file of configs/ and the net after a colon, "cifar10:resnet20"; empty for another system that the
        paper quotes.
      changes: fields of that config by dotted name, and their values.
      paper: the paper's numbers under the experiment's `columns`, None where it prints none.
      note: what the paper remarks on the row.
      group: the part of a table, or the panel of a figure, that it stands in.
      quoted: whether the paper took its numbers from another work.
      above: the error that the paper's is only said to be above, in percent.
      seeds, metric, recompute_bn: of this row, if not the experiment's.
      against: name of the row that this one is compared with, if there is one.
    """

    name: str
    label: str
    config: str = ""
    changes: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    paper: tuple[float | None, ...] = ()
    note: str = ""
    group: str = ""
    quoted: bool = False
    above: float | None = None
    seeds: int = 0
    metric: str = ""
    recompute_bn: int | None = None
    against: str = ""


@dataclasses.dataclass(frozen=True)
class Experiment:
    """A table or figure.

    Attributes:
      name: "he2015.table6".
      title: what it shows, in our words.
      rows: in the paper's order.
      columns: what the paper's numbers are, by keys of `COLUMNS`; none for a figure.
      metric: what they measure, a field of `Result` or an evaluation protocol's metric; empty for a table that is
        computed from the nets, without a run.
      protocol: how the paper reports several runs, one of `PROTOCOLS`.
      seeds: how many runs of each row the paper made.
      recompute_bn: training images over which batch norm's statistics are averaged before a run is evaluated; 0: the
        running statistics of training are kept.
      evaluated_on: what the numbers are of: "test", or "validation" where the paper has those; numbers of other images
        are marked.
      note: what a reader must know.
      form: one of `FORMS`.
      options: arguments of the analysis, where the form is one.

    Raises:
      UserError: at construction, for a protocol, form, column or `against` that there is not.
    """

    name: str
    title: str
    rows: tuple[Row, ...]
    columns: tuple[str, ...] = ()
    metric: str = "test_error"
    protocol: str = "single"
    seeds: int = 1
    recompute_bn: int = 0
    evaluated_on: str = "test"
    note: str = ""
    form: str = "table"
    options: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    def __post_init__(self) -> None:
        """Checks what would else be found out behind the runs."""
        against = [row.against for row in self.rows if row.against]
        checks: tuple[tuple[str, Sequence[str], Collection[str]], ...] = (
            ("protocol", [self.protocol], PROTOCOLS), ("form", [self.form], FORMS), ("column", self.columns, COLUMNS),
            ("row to compare with", against, [row.name for row in self.rows]),
        )  # fmt: skip
        for kind, values, known in checks:
            for value in values:
                if value not in known:
                    raise unknown_name(f"{kind} of {self.name}", value, known)


def row_config(
    row: Row, seed: int = 0, steps_scale: float = 1.0, changes: Mapping[str, Any] | None = None
) -> ConfigDict:
    """Returns the config of one run of a row.

    Args:
      row: a row with a config.
      seed: of the run.
      steps_scale: shortens the whole schedule: steps, warm-up, and the intervals of logging, evaluation and
        checkpoints. The config's field `steps_scale` says so in every record.
      changes: further fields by dotted name, such as another data set or folder.

    Raises:
      UserError: for a value of another type than its field has, and for weights where the row's runs begin without.
    """
    file, _, net = row.config.partition(":")
    config: ConfigDict = importlib.import_module(f"configs.{file}").get_config(net)
    with config.unlocked():
        config.update_from_flattened_dict(row.changes)
    if (changes or {}).get("init_from") is not None and not asks_for_weights(config):
        raise UserError(f"row {row.name}: its runs begin with random weights, and not with init_from; "
                        "configs/finetune.py is for training on from weights")  # fmt: skip
    try:
        with config.unlocked():
            config.update_from_flattened_dict(changes or {})
        config.seed = seed
        if steps_scale != 1.0:
            _shorten(config, steps_scale)
        config_hash(config)  # fails for what no record could hold
    except (TypeError, ValueError, KeyError) as error:  # of ml_collections, for a value of another type
        raise UserError(f"row {row.name}: {' '.join(str(error).split())}") from error
    return config


def _shorten(config: ConfigDict, steps_scale: float) -> None:
    config.steps_scale = steps_scale
    config.schedule.warmup_steps = round(config.schedule.warmup_steps * steps_scale)
    for field in ("steps", "log_every", "eval_every", "checkpoint_every"):
        config[field] = max(1, round(config[field] * steps_scale))
    config.eval_every = min(max(config.eval_every, _EVAL_EVERY), config.steps)


def run_folder(out: Path, config: ConfigDict) -> Path:
    """Returns where the run of a config lies under `out`. Tables and figures that share a run share its folder."""
    return out / f"{config.model.name}-{config.data.name}-seed{config.seed}-{config_hash(config)}"


def asks_for_weights(config: ConfigDict) -> bool:
    """Returns whether a run of a config begins with weights that the user must have, as detectors do."""
    return config.init_from is not None or bool(config.finetune.frozen)


def begins_with_weights(experiment: Experiment) -> bool:
    """Returns whether any run of a table begins with weights, see `asks_for_weights`."""
    return any(asks_for_weights(row_config(row)) for row in runnable(experiment))


def runnable(experiment: Experiment, names: str = "") -> list[Row]:
    """Returns the rows that can be run, or those of them that are named.

    Args:
      experiment: a table or figure.
      names: names or labels of rows, with commas between. A label may hold commas itself, and stands for all rows that
        have it; case does not count.

    Raises:
      UserError: for a name that no such row has.
    """
    rows = [row for row in experiment.rows if row.config and experiment.metric]
    if not names.strip(", "):
        return rows
    if not rows:
        raise UserError(f"{experiment.name} has no row to run: it is computed from the nets")
    wanted: set[str] = set()
    parts = [part.strip() for part in names.split(",")]
    while parts:
        # The longest label that the next parts spell.
        for count in range(len(parts), 0, -1):
            text = ", ".join(parts[:count]).casefold()
            if found := {row.name for row in rows if text in (row.name.casefold(), row.label.casefold())}:
                wanted |= found
                break
        else:
            if parts[0] and any(parts[0] in (row.name, row.label) for row in experiment.rows):
                known = ", ".join(row.name for row in rows)
                raise UserError(f"row {parts[0]!r} of {experiment.name} is not ours to run; rows: {known}")
            if parts[0]:
                names_and_labels = [text for row in rows for text in (row.name, row.label)]
                raise unknown_name(f"row of {experiment.name}", parts[0], names_and_labels)
        del parts[:count]
    return [row for row in rows if row.name in wanted]


def paper_seeds(experiment: Experiment, row: Row) -> int:
    """Returns how many runs the paper made of a row."""
    return row.seeds or experiment.seeds


def asked_metric(experiment: Experiment, row: Row) -> tuple[str, int]:
    """Returns how a row's runs are tested: the metric, and `recompute_bn`."""
    recompute_bn = experiment.recompute_bn if row.recompute_bn is None else row.recompute_bn
    return row.metric or experiment.metric, recompute_bn


def statistic(experiment: Experiment, row: Row) -> str:
    """Returns which statistic of our runs is compared with the paper's number: "best", "median" or "mean".

    A single run of the paper is compared with the mean of ours: the best of several would flatter us.
    """
    return "mean" if paper_seeds(experiment, row) == 1 or experiment.protocol == "single" else experiment.protocol
