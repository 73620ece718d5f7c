"""What the tests of tables share, besides tests/experiments/tiny.py."""

from collections.abc import Callable

import pytest

from experiments import registry
from experiments.launchers import local
from experiments.registry import Experiment
from tests.experiments.tiny import InProcess


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
