"""The list of all tables and figures.

Each has a file under experiments/he2015/ or experiments/he2016/ with an `EXPERIMENT`: its rows and the paper's numbers.
"""

import importlib
from typing import TYPE_CHECKING

from resnet_jax.errors import UserError, unknown_name

if TYPE_CHECKING:
    from experiments.experiment import Experiment

#: The papers, by the folders of their tables and figures.
PAPERS = {
    "he2015": "Deep Residual Learning for Image Recognition (arXiv 1512.03385)",
    "he2016": "Identity Mappings in Deep Residual Networks (arXiv 1603.05027)",
}

#: Every table and figure that can be made, in the papers' order.
NAMES: tuple[str, ...] = (
    *(f"he2015.table{i}" for i in range(1, 10)),
    *(f"he2015.figure{i}" for i in (1, 4, 6, 7)),
    *(f"he2016.table{i}" for i in range(1, 6)),
    *(f"he2016.figure{i}" for i in (1, 3, 6)),
)

#: Figures that analyse trained nets (experiments/net_figures.py): the papers' CIFAR-10 nets or, with ".digits", nets
#: that a laptop trains in minutes.
INSIDE: tuple[str, ...] = (
    "he2015.figure7.digits",
    *(f"{name}{data}" for name in ("gradients", "li2018.loss_surface", "veit2016.lesion") for data in ("", ".digits")),
)

#: What else the papers have, and why it is not here.
NOT_YET = {
    "he2015.figure2": "a drawing of a residual unit",
    "he2015.figure3": "a drawing of three nets; their sizes and costs are in table 1",
    "he2015.figure5": "a drawing of a bottleneck",
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


def load(name: str) -> "Experiment":
    """Returns the table or figure of that name.

    Raises:
      UserError: for a name that is neither in `NAMES` nor in `INSIDE`.
    """
    if name in INSIDE:
        return importlib.import_module("experiments.net_figures").EXPERIMENTS[name]
    if name not in NAMES:
        raise _unknown(name)
    return importlib.import_module(f"experiments.{name}").EXPERIMENT


def expand(name: str) -> list[str]:
    """Returns the names of the tables and figures that a command was given, each once.

    Args:
      name: of a table or figure, of a paper for all of its own, or several of them with commas between.

    Raises:
      UserError: for an unknown name.
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
