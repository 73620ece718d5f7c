"""What a run's result says of its training: errors of the last epoch, seconds, hardware."""

import contextlib
import signal
import time

import jax
import numpy as np
import pytest

from resnet_jax.errors import Stopped
from resnet_jax.tasks.classification import Classification
from resnet_jax.training.loop import fit
from resnet_jax.training.result import hardware, last_epoch_means
from resnet_jax.training.run_record import RunRecord
from tests.training.interruptions import Signals


def test_last_epoch_means_weigh_lines_by_their_steps():
    lines = [{"step": s, "loss": 1.0, "train_error": e} for s, e in ((10, 90.0), (20, 50.0), (25, 20.0))]
    for epoch, mean in ((10, (50 * 10 + 20 * 5) / 15), (5, 20.0), (1000, (90 * 10 + 50 * 10 + 20 * 5) / 25)):
        assert last_epoch_means(lines, epoch) == {"train_error": pytest.approx(mean)}


class Unrounded(Classification):
    """Gives a hundredth of the loss as the error, which is another number at every step."""

    def loss(self, outputs, inputs, targets):
        loss, _ = super().loss(outputs, inputs, targets)
        return loss, {"error": loss / 100}


@pytest.mark.parametrize(("repeats", "last"), [(1, 3), (2, 5)])
def test_a_results_training_error_is_of_its_last_epoch(tiny_config, tmp_path, repeats, last):
    """37 images and 16 a step; not of the whole run, in which the net had not learned yet."""
    config = tiny_config(data__held_out=1400, data__repeats=repeats, log_every=1)
    result = fit(config, tmp_path / "run", devices=jax.devices()[:1], task=Unrounded(10))
    errors = [x["train_error"] for x in RunRecord(tmp_path / "run").lines() if "loss" in x]
    assert len(set(errors)) == len(errors) == 6
    assert result.metrics["train_error"] == pytest.approx(np.mean(errors[-last:]), rel=1e-6)


def test_seconds_and_hardware_are_of_this_run(tiny_config, tmp_path):
    began = time.monotonic()
    result = fit(tiny_config(), tmp_path / "run", devices=jax.devices()[:2])
    elapsed = time.monotonic() - began
    assert elapsed - 2 < result.seconds <= elapsed + 0.1
    assert result.hardware["devices"] == 2


class Timed(Signals):
    """Notes when a step was last seen to be done; the one of the signal takes a second."""

    def update(self, step, values, *, line):
        time.sleep(step == self.step and not line)
        self.seen = time.monotonic()
        super().update(step, values, line=line)


def test_seconds_add_up_over_the_parts_of_a_run(tiny_config, tmp_path):
    config, least, most = tiny_config(checkpoint_every=100, log_every=1), 0.0, 0.0
    for signalled in (3, 0):
        display, began = Timed(signalled or 99, signal.SIGTERM), time.monotonic()
        with pytest.raises(Stopped) if signalled else contextlib.nullcontext():
            result = fit(config, tmp_path / "run", display, devices=jax.devices()[:1])
        least, most = least + display.seen - began, most + time.monotonic() - began
    assert least - 0.1 <= result.seconds <= most + 0.1


@pytest.mark.parametrize(("devices", "layers"), [(1, "compiled"), (2, "XLA")])
def test_the_layers_are_recorded_of_the_devices_that_train(kernels, devices, layers):
    """Not of all devices of the process: the program for one CPU device has the layers in C++."""
    assert hardware(jax.devices()[:devices])["convolutions"] == layers
