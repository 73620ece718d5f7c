"""How long a step waits for input, and what memory input takes."""

import concurrent.futures
import multiprocessing
import time
from types import SimpleNamespace

import jax
import numpy as np
import pytest

from benchmarks.input_run import resident_bytes
from resnet_jax.data.imagenet.loaders import TrainLoader
from resnet_jax.data.streaming import open_splits
from resnet_jax.training.distributed import make_mesh
from resnet_jax.training.stepper import Stepper


class Metric:
    """A number that a device has ready at a time."""

    def __init__(self, ready):
        self.ready = ready

    def is_ready(self):
        return time.monotonic() >= self.ready

    def __array__(self, dtype=None, copy=None):
        time.sleep(max(0, self.ready - time.monotonic()))
        return np.zeros(1)


@pytest.mark.parametrize(("input_seconds", "least", "most"), [(0, 0, 10), (0.1, 0, 10), (0.5, 70, 100)])
def test_waiting_for_input_is_seen(input_seconds, least, most):
    """Steps of 0.25 s on a device that does one after the other: shorter input hides behind them, longer does not."""
    free = [0.0]

    def step(state, resident, inputs):
        free[0] = max(free[0], time.monotonic()) + 0.25
        return state, {"loss": Metric(free[0])}

    pipeline = SimpleNamespace(
        train=None, train_inputs=lambda *a: time.sleep(input_seconds), send=lambda inputs, sharding: inputs
    )
    lowered = SimpleNamespace(compile=lambda: step)
    stepper = Stepper(SimpleNamespace(
        config=SimpleNamespace(batch_size=1), pipeline=pipeline,
        mesh=make_mesh(jax.devices()[:1]), train_step=SimpleNamespace(lower=lambda *a: lowered)
    ))  # fmt: skip
    for number in range(7):
        if number == 2:  # nothing hides the first one's input
            stepper.reset_timing()
        stepper.advance(None, number, 1)
        list(stepper.collect(leave=1))
    assert least <= stepper.timing()["data_wait"] <= most


def growth(folder, leak):
    """Bytes that memory grows by over 30 batches of 3 MiB, from the tenth on; with `leak`, each is held on to."""
    source = open_splits("image_folder", folder).train
    loader = TrainLoader(
        source, seed=0, batch_size=16, rows=(0, 16), size=256, crop="aspect", sides=(256, 256), workers=2
    )
    kept = []
    for number in range(40):
        if number == 10:
            before = resident_bytes()
        images, _ = loader.batches([number], range(number + 1, number + 4))
        if leak:
            kept.append(images)
    return resident_bytes() - before


def test_memory_is_flat(tiny_folder):
    """Fifteen epochs: what a batch leaves the next one uses. With all kept it is 90 MiB.

    In processes of their own: in this one a leak could hide in memory that earlier tests have freed.
    """
    grown = {}
    for leak in (False, True):
        with concurrent.futures.ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as alone:
            grown[leak] = alone.submit(growth, str(tiny_folder), leak).result()
    assert grown[False] < 15 * 2**20
    assert grown[True] > 80 * 2**20, "a leak is not seen"
