"""What a table or figure of the papers consists of, and the list of all that there are.

One file per table or figure under experiments/he2015/ and experiments/he2016/ holds an `EXPERIMENT`: its rows and the
paper's numbers, which stand nowhere else.
"""

import dataclasses
import importlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from resnet_jax.config import config_hash
from resnet_jax.errors import UserError, unknown_name

#: The papers by their rooms here.
PAPERS = {
    "he2015": "Deep Residual Learning for Image Recognition (arXiv 1512.03385)",
    "he2016": "Identity Mappings in Deep Residual Networks (arXiv 1603.05027)",
}

#: Every table and figure that can be made, in the papers' order.
NAMES: tuple[str, ...] = (
    *(f"he2015.table{i}" for i in range(1, 7)),
    *(f"he2015.figure{i}" for i in (1, 4, 6, 7)),
    *(f"he2016.table{i}" for i in range(1, 6)),
    *(f"he2016.figure{i}" for i in (1, 3, 6)),
)

#: Figures that look into trained nets (experiments/analysis.py): from the CIFAR-10 nets of the papers, or, with
#: ".digits", from those that a laptop trains in minutes.
INSIDE: tuple[str, ...] = (
    "he2015.figure7.digits",
    *(f"{name}{data}" for name in ("gradients", "li2018.loss_surface", "veit2016.lesion") for data in ("", ".digits")),
)

#: What the papers have besides, and why it is not here.
NOT_YET = {
    "he2015.figure2": "a drawing of a residual unit",
    "he2015.figure3": "a drawing of three nets; their sizes and costs are in table 1",
    "he2015.figure5": "a drawing of a bottleneck",
    "he2015.table7": "detection on PASCAL VOC",
    "he2015.table8": "detection on COCO",
    "he2015.table9": "detection on COCO with refinement, context and several scales",
    "he2015.table10": "detection on PASCAL VOC 2007, class by class",
    "he2015.table11": "detection on PASCAL VOC 2012, class by class",
    "he2015.table12": "detection on ImageNet's 200 classes",
    "he2015.table13": "localization on ImageNet",
    "he2015.table14": "localization on ImageNet, beside other systems",
    "he2016.figure2": "a drawing of the shortcuts of table 1",
    "he2016.figure4": "a drawing of the units of table 2",
    "he2016.figure5": "a drawing of how pre-activation comes about",
    "he2016.section5": "ResNet-101 with BN after addition on ImageNet, in the text alone: 24.6 / 7.5 beside 23.6 / 7.1",
}

#: What an experiment's `columns` may be, and how a table heads them. The first group is computed from the net; the
#: next says how an ImageNet net is shown its images; the last is measured.
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
}
COMPUTED = ("layers", "params", "flops")
MEASURED = ("error", "mean", "std", "top1", "top5")

#: What can be measured in finished runs, by the names behind `python -m resnet_jax analyze`.
ANALYSES = ("responses", "gradients", "surface", "lesion")

#: How an experiment is drawn: a table alone; curves of training (dashed) and test error (bold), a panel for each
#: group; the same with thin lines instead of dashed; a panel of training and one of test errors; training loss (dashed)
#: and test error (bold), a panel for each group; or what an analysis of its runs finds.
FORMS = ("table", "curves", "thin_curves", "train_test", "loss_and_error", *ANALYSES)

#: Training images that batch norm's statistics are averaged over for the ImageNet tables. The authors took "a
#: sufficiently large training batch after the training procedure" (README of their models), without its size.
RECOMPUTE_BN = 50_000

#: A shrunk run is not evaluated more often than this, in steps: CIFAR's test set would cost more than the training.
_EVAL_EVERY = 40


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
      group: the part of a table, or the panel of a figure, that it stands in.
      quoted: the paper's numbers are another work's. Such a row may have a config of ours all the same.
      above: the paper prints no number, only that the error is above this many percent.
      seeds: how many runs the paper made of this row, if not the experiment's number.
      metric: of this row, if not the experiment's.
      recompute_bn: of this row, if not the experiment's.
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
      columns: what the paper's numbers are, by keys of `COLUMNS`: ("error", "mean", "std").
      metric: the field of `Result` or the name of the evaluation protocol that these are: "test_error"; empty for a
        table that is computed from the nets, without a run.
      protocol: how the paper reports several runs: "best", "median" or "single".
      seeds: how many runs of each row the paper made.
      recompute_bn: training images that batch norm's statistics are averaged over before a run is evaluated; 0: those
        of training are kept.
      rows: in the paper's order.
      note: what a reader must know beside it.
      form: one of `FORMS`.
      options: of the analysis, where the form is one: arguments of its `run_...`.
    """

    name: str
    title: str
    columns: tuple[str, ...]
    metric: str
    protocol: str
    seeds: int
    rows: tuple[Row, ...]
    recompute_bn: int = 0
    note: str = ""
    form: str = "table"
    options: Mapping[str, Any] = dataclasses.field(default_factory=dict)


def load(name: str) -> Experiment:
    """The table or figure of that name.

    Raises:
      UserError: for a name that is neither in `NAMES` nor in `INSIDE`.
    """
    if name in INSIDE:
        return importlib.import_module("experiments.analysis").EXPERIMENTS[name]
    if name not in NAMES:
        raise _unknown(name)
    return importlib.import_module(f"experiments.{name}").EXPERIMENT


def expand(name: str) -> list[str]:
    """Names of tables and figures from what a command was given, each once.

    Args:
      name: of a table or figure, of a paper for all of its own, or several of them with commas between.

    Raises:
      UserError: for a name that neither is.
    """
    found: list[str] = []
    for part in name.split(","):
        if part in PAPERS:
            found += [one for one in NAMES if one.startswith(f"{part}.")]
        elif part in NAMES or part in INSIDE:
            found.append(part)
        else:
            raise _unknown(part)
    return list(dict.fromkeys(found))


def _unknown(name: str) -> UserError:
    if name in NOT_YET:
        return UserError(f"{name} ({NOT_YET[name]}) is not there yet")
    return unknown_name("table or figure", name, [*NAMES, *INSIDE, *NOT_YET, *PAPERS])


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
        config.eval_every = min(max(config.eval_every, _EVAL_EVERY), config.steps)
    return config


def run_folder(out: Path, config: ConfigDict) -> Path:
    """Where the run of a config lies under `out`; tables and figures that share a run share its folder."""
    return out / f"{config.model.name}-{config.data.name}-seed{config.seed}-{config_hash(config)}"


def runnable(experiment: Experiment, names: Sequence[str] = ()) -> list[Row]:
    """The rows that can be run, or those of them that are named.

    Raises:
      UserError: for a name that no such row has.
    """
    rows = {row.name: row for row in experiment.rows if row.config and experiment.metric}
    for name in names:
        if not rows:
            raise UserError(f"{experiment.name} has no row to run: it is computed from the nets")
        if any(row.name == name for row in experiment.rows) and name not in rows:
            raise UserError(f"row {name!r} of {experiment.name} is not ours to run; rows: {', '.join(rows)}")
        if name not in rows:
            raise unknown_name(f"row of {experiment.name}", name, rows)
    return [row for row in rows.values() if not names or row.name in names]


def paper_seeds(experiment: Experiment, row: Row) -> int:
    """How many runs the paper made of a row."""
    return row.seeds or experiment.seeds


def asked_metric(experiment: Experiment, row: Row) -> tuple[str, int]:
    """Returns how a row's runs are tested: the metric, and the training images of `Experiment.recompute_bn`."""
    recompute_bn = experiment.recompute_bn if row.recompute_bn is None else row.recompute_bn
    return row.metric or experiment.metric, recompute_bn


def statistic(experiment: Experiment, row: Row) -> str:
    """What of our runs stands against the paper's number of a row: "best", "median" or "mean".

    Where the paper made one run, that is a draw from all there might be: the mean of ours is what to expect of it,
    and the best of several would flatter us.
    """
    return "mean" if paper_seeds(experiment, row) == 1 else experiment.protocol
