"""Figures that analyse trained nets: layer responses, gradient norms, loss surfaces, lesions.

Each is there twice: for CIFAR-10 nets as the papers trained them and, with ".digits" after its name, for digits nets,
which a laptop trains in minutes. `run` trains the nets and analyses them, `render` draws what was found.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from experiments.experiment import Experiment, Row

_FOUR = ("plain20", "plain56", "resnet20", "resnet56")
_SETS = {"cifar10": "CIFAR-10", "digits": "digits"}


def _figure(
    name: str, title: str, analysis: str, dataset: str, nets: Sequence[str], note: str, **options: Any
) -> Experiment:
    def label(net: str) -> str:
        return net.replace("plain", "plain-").replace("resnet", "ResNet-")

    rows = tuple(Row(net, label(net), f"{dataset}:{net}") for net in nets)
    return Experiment(name, f"{title}: {_SETS[dataset]}", rows, note=note, form=analysis, options=options)


def _both(
    name: str, title: str, analysis: str, note: str, cifar10: Sequence[str] = _FOUR, **options: Any
) -> list[Experiment]:
    """Returns a figure of the papers' nets, with `options` for the analysis, and the same of digits nets."""
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
