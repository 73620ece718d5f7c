"""What the tests of tables share, besides tests/experiments/tiny.py."""

from collections.abc import Callable

import pytest

from experiments import registry, tables
from experiments.experiment import Experiment, Row
from experiments.launchers import local
from resnet_jax.models.summary import Summary
from tests.experiments.tiny import InProcess

#: Counting the layers of the deepest nets takes seconds.
DEEP = ("resnet1202", "resnet1001")


@pytest.fixture
def listed(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Makes experiments known to the command by their names."""

    def make(*experiments: Experiment) -> None:
        known = {experiment.name: experiment for experiment in experiments}
        monkeypatch.setattr(registry, "NAMES", (*registry.NAMES, *known))
        monkeypatch.setattr(registry, "load", known.__getitem__)

    return make


@pytest.fixture
def in_process(monkeypatch: pytest.MonkeyPatch) -> type[InProcess]:
    """Runs go in this process, where nothing has to be imported and compiled again."""
    monkeypatch.setattr(InProcess, "started", [])
    monkeypatch.setattr(InProcess, "kills", [])
    monkeypatch.setattr(local, "TrialProcess", InProcess)
    monkeypatch.setattr(local, "INTERVAL", 0)
    return InProcess


@pytest.fixture
def shallow(monkeypatch: pytest.MonkeyPatch) -> None:
    """Counts a 20-layer net in the place of nets of a thousand layers."""
    real = tables.net_summary

    def summary(row: Row) -> Summary:
        deep = any(net in row.config for net in DEEP)
        return real(Row("a", "A", "cifar10:resnet20") if deep else row)

    monkeypatch.setattr(tables, "net_summary", summary)
