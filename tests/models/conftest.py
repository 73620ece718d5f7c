"""What the tests of the nets share."""

import gc

import pytest


@pytest.fixture(autouse=True, scope="module")
def no_cyclic_garbage_collection():
    """Tracing a deep net makes millions of small objects: without the collector it takes half of the time."""
    gc.disable()
    yield
    gc.enable()
    gc.collect()
