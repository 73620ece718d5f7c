"""Commands called in the tests' own process, where JAX has long been awake."""

import jax
import pytest

from tests.data.imagenet.conftest import tiny_folder  # noqa: F401, a fixture


@pytest.fixture(autouse=True)
def no_launcher(monkeypatch):
    """JAX answers as it does in a fresh process that no launcher started; awake, it would refuse to look."""

    def initialize(*_, **__):
        raise ValueError("coordinator_address should be defined.")

    monkeypatch.setattr(jax.distributed, "initialize", initialize)
