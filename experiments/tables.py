"""Puts our runs into a table or figure of the papers, for report/ to draw and write."""

import dataclasses
import functools
from collections.abc import Mapping, Sequence
from typing import Any

from experiments.experiment import (
    COLUMNS,
    COMPUTED,
    HIGHER_IS_BETTER,
    MEASURED,
    Experiment,
    Row,
    asked_metric,
    paper_seeds,
    row_config,
    statistic,
)
from experiments.run_index import RunIndex
from experiments.scores import held_out, run_errors
from resnet_jax.config import model_overrides
from resnet_jax.models.registry import create_model, get_variant
from resnet_jax.models.summary import Summary, summarize, variant_summary
from resnet_jax.report.comparison import Computed, Entry, Measure
from resnet_jax.report.run_data import Run, load_run
from resnet_jax.report.run_statistics import Spread, difference, spread

#: Digits after the decimal point of what is computed from a net, or is the paper's alone.
DIGITS = {
    "layers": 0, "params": 2, "flops": 2, "train_crop": 0, "test_crop": 0, "test_dev_ap50": 1, "test_dev_ap": 1
}  # fmt: skip

#: Classes of the sets with another number than the net was published for.
CLASSES = {"cifar100": 100}


@dataclasses.dataclass(frozen=True)
class Filled:
    """A table or figure with our runs.

    Attributes:
      experiment: the table or figure.
      entries: its rows, once for each length of runs.
      runs: by the entries' keys, finished and begun ones, by seed.
      changes: fields in which the runs differ from the rows.
      left_out: a sentence for each evaluation that is not what its row asks for.
    """

    experiment: Experiment
    entries: tuple[Entry, ...]
    runs: Mapping[str, tuple[Run, ...]]
    changes: Mapping[str, Any]
    left_out: tuple[str, ...] = ()


def fill(
    experiment: Experiment, index: RunIndex, changes: Mapping[str, Any] | None = None, with_computed: bool = True
) -> Filled:
    """Puts the runs into the rows. Runs of different length never share an entry.

    Args:
      experiment: a table or figure.
      index: the runs.
      changes: fields in which the runs differ from the rows, by dotted name.
      with_computed: whether to count layers, parameters and multiply-adds, which takes seconds for the deepest nets.
    """
    entries: list[Entry] = []
    runs: dict[str, tuple[Run, ...]] = {}
    sentences: list[str] = []
    for row in experiment.rows:
        runnable = row.config and experiment.metric
        found = _runs_by_kind(row, index, changes or {}, experiment.evaluated_on) if runnable else {}
        for (scale, is_held_out), members in found.items() or [((1.0, False), ())]:
            asked = (*asked_metric(experiment, row), experiment.evaluated_on)
            tests = [run_errors(run, *asked) for run in members]
            errors = [found for found, _ in tests]
            entry = _entry(experiment, row, scale, is_held_out, members, errors, with_computed)
            entries.append(entry)
            if members:
                runs[entry.key] = tuple(members)
            sentences += [sentence for _, sentence in tests if sentence]
    return Filled(
        experiment, tuple(_with_pairs(experiment, entries)), runs, dict(changes or {}), tuple(dict.fromkeys(sentences))
    )


def net_summary(row: Row) -> Summary:
    """Returns layers, parameters and multiply-adds of a row's net."""
    config = row_config(row)
    return _summary(config.model.name, config.data.name, tuple(model_overrides(config).items()))


@functools.cache  # rows of several tables share their nets, and deep ones take seconds
def _summary(name: str, data: str, overrides: tuple[tuple[str, Any], ...]) -> Summary:
    classes = {"num_classes": CLASSES[data]} if data in CLASSES else {}
    if not overrides and not classes:
        return variant_summary(name)
    return summarize(create_model(name, **dict(overrides), **classes), name, get_variant(name).image_size)


def _runs_by_kind(row: Row, index: RunIndex, changes: Mapping[str, Any], evaluated_on: str
                  ) -> dict[tuple[float, bool], list[Run]]:  # fmt: skip
    """Returns a row's runs by length and by whether they were tested on held-out examples; the paper's length first."""
    kinds: dict[tuple[float, bool], list[Run]] = {}
    for scale in index.scales:
        for found in index.find(row, scale, changes):
            run = load_run(row.label, row.group, found.folder)
            other = held_out(run, evaluated_on) or bool(changes.get("data.held_out"))
            kinds.setdefault((scale, other), []).append(run)
    return dict(sorted(kinds.items(), key=lambda item: (item[0][0] != 1, -item[0][0], item[0][1])))


def _entry(
    experiment: Experiment, row: Row, scale: float, is_held_out: bool, runs: Sequence[Run],
    errors: Sequence[Mapping[str, float]], with_computed: bool,
) -> Entry:  # fmt: skip
    results = [run.result for run in runs if run.result is not None]
    evaluated_on = results[0].evaluated_on if results else "held_out" if is_held_out else experiment.evaluated_on
    runnable = bool(row.config and experiment.metric)
    paper = dict(zip(experiment.columns, row.paper, strict=False))
    computed = [column for column in experiment.columns if column in DIGITS and with_computed]
    return Entry(
        name=row.name,
        label=row.label,
        group=row.group,
        note=row.note,
        quoted=row.quoted,
        steps_scale=scale,
        held_out=is_held_out,
        evaluated_on=evaluated_on,
        done=len(results),
        wanted=paper_seeds(experiment, row) if runnable else 0,
        unfinished=len(runs) - len(results),
        computed=tuple(_fact(column, row, paper) for column in computed),
        measures=_measures(experiment, row, paper, runs, errors),
    )


def _fact(column: str, row: Row, paper: Mapping[str, float | None]) -> Computed:
    ours: float | None = None
    if column in COMPUTED and row.config:
        summary = net_summary(row)
        ours = {"layers": summary.depth, "params": summary.params / 1e6, "flops": summary.flops / 1e9}[column]
    return Computed(COLUMNS[column], paper.get(column), ours, DIGITS[column])


def _measures(
    experiment: Experiment, row: Row, paper: Mapping[str, float | None], runs: Sequence[Run],
    errors: Sequence[Mapping[str, float]],
) -> tuple[Measure, ...]:  # fmt: skip
    """Returns the numbers that a table prints, or the errors at the end of a figure's curves.

    `errors` are those of the runs, by column.
    """

    def measure(heading: str, found: Sequence[Mapping[str, float]], column: str, **fields: Any) -> Measure:
        values = [one[column] for one in found if column in one]
        ours = spread(values, lower_is_better=column not in HIGHER_IS_BETTER)
        return Measure(heading, statistic=statistic(experiment, row), ours=ours, **fields)

    if not experiment.metric:
        return ()
    if not experiment.columns:
        training = [run.result.metrics for run in runs if run.result is not None]
        train = measure("training error (%)", training, "train_error", above=row.above)
        return (train, measure("test error (%)", errors, "error"))
    found = []
    for column in MEASURED:
        if column in experiment.columns:
            fields: dict[str, Any] = {"paper": paper.get(column), "above": row.above}
            if column == "error":
                fields |= {"paper_mean": paper.get("mean"), "paper_std": paper.get("std")}
            found.append(measure(COLUMNS[column], errors, column, **fields))
    return tuple(found)


def _with_pairs(experiment: Experiment, entries: Sequence[Entry]) -> list[Entry]:
    """Adds to each entry the difference from the entry of the same length that its row is compared with."""
    against = {row.name: row.against for row in experiment.rows}
    by_kind = {(entry.name, entry.steps_scale, entry.held_out): entry for entry in entries}
    labels = {entry.name: entry.label for entry in entries}
    numbers = {entry.name: _paper_number(entry) for entry in entries}
    paired = []
    for entry in entries:
        name = against[entry.name]
        if name:
            one, other = _spread(entry), _spread(by_kind.get((name, entry.steps_scale, entry.held_out)))
            paper, paper_other = numbers[entry.name], numbers[name]
            entry = dataclasses.replace(
                entry,
                against=labels[name],
                difference=None if one is None or other is None else difference(one, other),
                paper_difference=None if paper is None or paper_other is None else paper - paper_other,
            )
        paired.append(entry)
    return paired


def _spread(entry: Entry | None) -> Spread | None:
    return None if entry is None or entry.compared is None else entry.compared.ours


def _paper_number(entry: Entry) -> float | None:
    """Returns the paper's number for differences between rows: its mean, where it reports the best of several."""
    if (measure := entry.compared) is None:
        return None
    return measure.paper_mean if measure.statistic == "best" else measure.paper
