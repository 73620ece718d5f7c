"""The list of figures that look into nets: nets, configs and command lines that there are."""

import importlib
from pathlib import Path

import pytest

from experiments.analysis import FIGURES, command, find
from resnet_jax.cli.analyze import ANALYSES
from resnet_jax.errors import UserError


@pytest.mark.parametrize("figure", FIGURES, ids=lambda figure: figure.name)
def test_nets_and_analysis_are_there(figure):
    assert figure.analysis in ANALYSES
    for dataset in ("digits", "cifar10"):
        for net in getattr(figure, dataset):
            assert importlib.import_module(f"configs.{dataset}").get_config(net).data.name == dataset
    assert find(figure.name) is figure


def test_command():
    figure = find("li2018.loss_surface")
    assert command(figure, Path("runs"), Path("out"), "cifar10") == [
        "analyze", "surface", "--workdir=runs/plain56,runs/resnet56", "--out=out", "--points=51"
    ]  # fmt: skip
    assert "--points=51" not in command(figure, Path("runs"), Path("out"))
    with pytest.raises(UserError, match="unknown figure"):
        find("veit2016.lesions")
    with pytest.raises(UserError, match="unknown dataset"):
        command(figure, Path("runs"), Path("out"), "cifar100")
