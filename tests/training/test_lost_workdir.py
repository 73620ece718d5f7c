"""A workdir that goes away or fills up under a run: one line, status 2, and nothing after it."""

import shutil
import subprocess
import time

import jax
import pytest

from resnet_jax.errors import UserError
from resnet_jax.training.loop import fit
from resnet_jax.training.progress import PlainProgress, ProgressDisplay
from tests.training.kills import command, environment
from tests.training.test_checkpoints import small_disk  # noqa: F401, a fixture


class Does(ProgressDisplay):
    """Does something to the run's folder when step 3 is done."""

    def __init__(self, action):
        self.action = action

    def update(self, step, values, *, line):
        if step == 3 and not line:
            self.action()


@pytest.mark.parametrize("what", ["removed", "moved", "replaced", "lock removed", "lock replaced", "record removed"])
def test_a_folder_that_goes_away_ends_the_run(tiny_config, tmp_path, what):
    """Another process may have taken it: nothing is written there any more."""
    run, moved = tmp_path / "run", tmp_path / "moved"

    def action():
        if what == "removed":
            shutil.rmtree(run, ignore_errors=True)
        elif what in ("moved", "replaced"):
            run.rename(moved)
            if what == "replaced":
                run.mkdir()
                (run / "lock").touch()
                (run / "metrics.jsonl").touch()
        elif what == "record removed":
            (run / "metrics.jsonl").unlink()
        else:
            (run / "lock").unlink()
            if what == "lock replaced":
                (run / "lock").touch()

    # Checkpoints are not due: one that is under way would make the folder that is removed beneath it.
    config = tiny_config(log_every=1, steps=8, checkpoint_every=100, eval_every=100)
    why = "metrics.jsonl at step" if what == "record removed" else "removed or replaced while this process"
    with pytest.raises(UserError, match=why):
        fit(config, run, Does(action), devices=jax.devices()[:1])
    assert not (run / "result.json").exists()
    if what == "replaced":
        assert (run / "metrics.jsonl").read_bytes() == b""


@pytest.mark.parametrize("what", ["removed", "replaced", "removed during the last save"])
def test_checkpoints_that_go_away_end_the_run(tiny_config, tmp_path, what):
    """They are not made again in silence; the next start does so, and says so by its first step."""
    run = tmp_path / "run"

    def action():
        (run / "checkpoints").rename(tmp_path / "gone")
        if what == "replaced":
            (run / "checkpoints").mkdir()

    last = what == "removed during the last save"
    config = tiny_config(log_every=1, steps=4 if last else 8, checkpoint_every=4, eval_every=4)
    with pytest.raises(UserError, match="checkpoints was removed or replaced while this process"):
        fit(config, run, Does(action), devices=jax.devices()[:1])
    assert not (run / "result.json").exists() and not list((run / "checkpoints").glob("[0-9]*"))
    assert fit(config, run, devices=jax.devices()[:1]).steps == config.steps


def test_a_disk_that_fills_up(tmp_path, small_disk):  # noqa: F811
    """The process's own last line, behind which no thread of a library says anything; its log is on that disk."""
    run = small_disk / "run"
    process = subprocess.Popen(
        command(run, log_every=10, checkpoint_every=20), stderr=subprocess.PIPE, text=True,
        env=environment(tmp_path / "run"),
    )  # fmt: skip
    with (small_disk / "ballast").open("wb", buffering=0) as ballast:
        while process.poll() is None:
            if (run / "checkpoints/20").exists():
                try:
                    while ballast.write(bytes(2**12)):
                        pass
                except OSError:
                    pass
            time.sleep(0.005)
    said = process.communicate()[1].splitlines()
    assert process.returncode == 2, said
    assert said[-1].startswith("error: cannot write"), said
    assert all(line.startswith("cifar_resnet20 seed 3: ") for line in said[:-1]), said


def test_a_log_on_a_full_disk_does_not_end_a_run(tiny_config, tmp_path):
    full = open("/dev/full", "w")  # noqa: SIM115, closing it fails too
    assert fit(tiny_config(), tmp_path / "run", PlainProgress(full), devices=jax.devices()[:1]).steps == 6
    with pytest.raises(OSError, match="No space left"):
        full.close()
