"""SIGTERM and SIGINT: the step is finished, the state saved, and the rerun is bitwise the uninterrupted run."""

import os
import signal
import subprocess

import jax
import pytest
from jax.experimental import multihost_utils

from resnet_jax.errors import Stopped, UserError
from resnet_jax.training.checkpoint import Checkpoints
from resnet_jax.training.loop import fit
from resnet_jax.training.stopping import StopRequest
from tests.training.interruptions import Signals
from tests.training.kills import command, environment, lines


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_saves_and_the_rerun_goes_on(tiny_config, tmp_path, number):
    """No checkpoint is due before the end: only the signal's own can make the rerun begin at step 4.

    When step 3 is seen to be done, step 4 is about to be dispatched.
    """
    config = tiny_config(checkpoint_every=100, log_every=1)
    with pytest.raises(Stopped, match=f"{number.name} after step 4 of 6; .* the same command goes on"):
        fit(config, tmp_path / "run", Signals(3, number))
    assert [p.name for p in (tmp_path / "run/checkpoints").iterdir() if p.name.isdigit()] == ["4"]
    fit(config, tmp_path / "run")
    fit(config, tmp_path / "whole")
    assert lines(tmp_path / "run") == lines(tmp_path / "whole")


def test_handlers_are_put_back():
    before = signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)
    with StopRequest() as stop:
        os.kill(os.getpid(), signal.SIGTERM)
        assert stop.signal == signal.SIGTERM
    assert (signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)) == before


def test_a_second_ctrl_c_stops_at_once():
    with pytest.raises(KeyboardInterrupt), StopRequest():
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGINT)


def test_several_processes_stop_behind_a_dispatch_that_was_given_up(monkeypatch):
    """JAX's sync point says it of one dispatch alone; where that one diverged, the next one stops."""
    asked = []
    monkeypatch.setattr(jax.distributed, "is_initialized", lambda: True)
    monkeypatch.setattr(multihost_utils, "reached_preemption_sync_point", lambda i: asked.append(i) or i == 2)
    stop = StopRequest()
    assert [stop.reached() for _ in range(4)] == [False, True, True, True]
    assert asked[:2] == [1, 2] and stop.signal == signal.SIGTERM


def test_a_signal_after_the_last_step_lets_the_run_finish(tiny_config, tmp_path):
    assert fit(tiny_config(), tmp_path / "run", Signals(6, signal.SIGTERM)).steps == 6


def test_status_and_words_of_a_process(tmp_path):
    """As a scheduler sees it: SIGTERM, then exit status 75 with the way to go on."""
    process = subprocess.Popen(
        command(tmp_path / "run"),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment(tmp_path / "run"),
    )
    assert any("compiling" in line for line in process.stderr)
    process.send_signal(signal.SIGTERM)
    rest = process.communicate(timeout=120)[1]
    assert process.returncode == 75, rest
    assert "stopped: SIGTERM after step" in rest.splitlines()[-1] and "Traceback" not in rest


def test_a_state_that_cannot_be_saved_is_not_said_to_be(tiny_config, tmp_path, monkeypatch):
    """The write in the background fails: an error, not the status of a run that can go on."""
    monkeypatch.setattr(Checkpoints, "wait", lambda self: (_ for _ in ()).throw(UserError("the disk is full")))
    with pytest.raises(UserError, match="the disk is full"):
        fit(tiny_config(checkpoint_every=100, log_every=1), tmp_path / "run", Signals(3, signal.SIGTERM))
