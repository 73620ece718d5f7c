"""Figures that look into trained nets: what each needs, for a registry to list and `python -m resnet_jax analyze`.

Each is drawn twice over: from the digits nets, which a laptop trains in minutes (`python -m experiments ablation`), and
from the CIFAR-10 nets of the papers at full length.
"""

import dataclasses
from pathlib import Path

from resnet_jax.errors import unknown_name


@dataclasses.dataclass(frozen=True)
class AnalysisFigure:
    """A figure made from runs.

    Attributes:
      name: "he2015.figure7".
      title: what it shows, in our words.
      analysis: the word behind `python -m resnet_jax analyze`.
      digits, cifar10: nets that it is drawn from, by their names behind a config's colon, in the figure's order.
      options: further flags at full scale.
      note: what a reader must know beside it.
    """

    name: str
    title: str
    analysis: str
    digits: tuple[str, ...]
    cifar10: tuple[str, ...]
    options: tuple[str, ...] = ()
    note: str = ""


_FOUR = ("plain20", "plain56", "resnet20", "resnet56")

FIGURES: tuple[AnalysisFigure, ...] = (
    AnalysisFigure(
        name="he2015.figure7",
        title="Standard deviation of layer responses, in layer order and ranked",
        analysis="responses",
        digits=_FOUR,
        cifar10=(*_FOUR, "resnet110"),
        note="The paper does not say over which images; here it is the test set.",
    ),
    AnalysisFigure(
        name="gradients",
        title="Gradient norms by layer, through training",
        analysis="gradients",
        digits=_FOUR,
        cifar10=_FOUR,
        note="He et al. 2015, section 4.2, says that plain nets' gradients are healthy, without a figure.",
    ),
    AnalysisFigure(
        name="li2018.loss_surface",
        title="Training loss around the solution, over filter-normalised random directions",
        analysis="surface",
        digits=_FOUR,
        cifar10=("plain56", "resnet56"),
        options=("--points=51",),
        note="Li et al. 2018, figure 1: ResNet-56 with and without shortcuts.",
    ),
    AnalysisFigure(
        name="veit2016.lesion",
        title="Test error with units removed or exchanged",
        analysis="lesion",
        digits=_FOUR,
        cifar10=("plain56", "resnet56", "resnet110"),
        note="Veit et al. 2016, figures 3 and 5, have a ResNet-110 with pre-activation, and VGG as the plain net.",
    ),
)


def find(name: str) -> AnalysisFigure:
    """The figure of that name.

    Raises:
      UserError: for an unknown one.
    """
    by_name = {figure.name: figure for figure in FIGURES}
    if name not in by_name:
        raise unknown_name("figure", name, by_name)
    return by_name[name]


def command(figure: AnalysisFigure, runs: Path, out: Path, dataset: str = "digits") -> list[str]:
    """The arguments of `python -m resnet_jax` that make a figure.

    Args:
      figure: which.
      runs: the folder that holds a run's folder for each net, under its name.
      out: where the pictures go.
      dataset: "digits", or "cifar10" for the papers' scale.

    Raises:
      UserError: for another set.
    """
    nets = {"digits": figure.digits, "cifar10": figure.cifar10}
    if dataset not in nets:
        raise unknown_name("dataset", dataset, nets)
    options = figure.options if dataset == "cifar10" else ()
    workdirs = ",".join(str(runs / net) for net in nets[dataset])
    return ["analyze", figure.analysis, f"--workdir={workdirs}", f"--out={out}", *options]
