"""Figures that look into trained nets: layer responses, gradient norms, loss surfaces, lesions.

Each is there twice: from CIFAR-10 nets as the papers trained them, and, with ".digits" behind its name, from the digits
nets, which a laptop trains in minutes. `run` trains the nets and measures in them, `render` draws what was found.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from experiments.plan import Plan, State, Status
from experiments.registry import ANALYSES, Experiment, Row
from resnet_jax.analysis.run_files import read_json
from resnet_jax.report.analysis.figures import FIGURES

#: What each analysis leaves in a run's folder.
FILES = {name: file for name, (file, _) in FIGURES.items()}

_FOUR = ("plain20", "plain56", "resnet20", "resnet56")
_SETS = {"cifar10": "CIFAR-10", "digits": "digits"}


def _figure(
    name: str, title: str, analysis: str, dataset: str, nets: Sequence[str], note: str, **options: Any
) -> Experiment:
    def label(net: str) -> str:
        return net.replace("plain", "plain-").replace("resnet", "ResNet-")

    return Experiment(
        name=name,
        title=f"{title}: {_SETS[dataset]}",
        columns=(),
        metric="test_error",
        protocol="single",
        seeds=1,
        rows=tuple(Row(net, label(net), f"{dataset}:{net}") for net in nets),
        note=note,
        form=analysis,
        options=options,
    )


def _both(
    name: str, title: str, analysis: str, note: str, cifar10: Sequence[str] = _FOUR, **options: Any
) -> list[Experiment]:
    """A figure at the papers' scale, with `options` for the analysis, and its small twin."""
    return [
        _figure(name, title, analysis, "cifar10", cifar10, note, **options),
        _figure(f"{name}.digits", title, analysis, "digits", _FOUR, note),
    ]


EXPERIMENTS: Mapping[str, Experiment] = {
    figure.name: figure
    for figure in (
        _figure(
            "he2015.figure7.digits",
            "Standard deviation of layer responses",
            "responses",
            "digits",
            _FOUR,
            "He et al. 2015, figure 7, does not say over which images; here it is the test set.",
        ),
        *_both(
            "gradients",
            "Gradient norms by layer, through training",
            "gradients",
            "He et al. 2015, section 4.2, says that plain nets' gradients are healthy, without a figure.",
        ),
        *_both(
            "li2018.loss_surface",
            "Training loss around the solution",
            "surface",
            "Li et al. 2018, figure 1: ResNet-56 with and without shortcuts, over filter-normalised random directions.",
            ("plain56", "resnet56"),
            points=51,
        ),
        *_both(
            "veit2016.lesion",
            "Test error with units removed or exchanged",
            "lesion",
            "Veit et al. 2016, figures 3 and 5, have a ResNet-110 with pre-activation, and VGG as the plain net.",
            ("plain56", "resnet56", "resnet110"),
        ),
    )
}


def is_measured(folder: Path, analysis: str) -> bool:
    """Whether an analysis of the run in `folder` is there, and whole.

    Raises:
      UserError: if its file cannot be read.
    """
    path = folder / FILES[analysis]
    if not path.exists():
        return False
    found = read_json(path)  # a surface grows row by row
    return analysis != "surface" or len(found.get("loss", ())) == len(found.get("y", (None,)))


def to_measure(experiments: Sequence[Experiment], plan: Plan, statuses: Mapping[Path, Status]) -> list[tuple[Any, ...]]:
    """What is left to measure in the finished runs of a plan: (analysis, folder, data_dir, options) of each.

    Of layer responses, means over all seeds are drawn; the other figures show the first run of each row.
    """
    forms = {one.name: one for one in experiments if one.form in ANALYSES}
    found: dict[str, tuple[Any, ...]] = {}
    for line in plan.lines:
        if (experiment := forms.get(line.experiment)) is None:
            continue
        for trial in line.trials if experiment.form == "responses" else line.trials[:1]:
            done = statuses[trial.folder].state is State.DONE
            if done and not is_measured(trial.folder, experiment.form):
                options = dict(experiment.options)
                key = json.dumps([experiment.form, str(trial.folder), options])
                found[key] = (experiment.form, trial.folder, trial.config.data.data_dir, options)
    return list(found.values())
