"""Steps that must not be kept, what a step takes, and profiler traces."""

import json
import math
import shutil
import time

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from resnet_jax.data.resident import ResidentPipeline
from resnet_jax.errors import UserError
from resnet_jax.tasks.classification import Classification
from resnet_jax.training.loop import fit
from resnet_jax.training.run_record import MACHINE_METRICS, RunRecord
from resnet_jax.training.stepper import Trace
from resnet_jax.training.stopping import Diverged, LossGuard
from resnet_jax.training.trainer import make_trainer
from tests.conftest import make_tiny_config
from tests.training.interruptions import DiesAt, Killed
from tests.training.kills import lines


def fingerprint(labels):
    """A number that tells the batches of these tests apart."""
    return jnp.sum(labels * jnp.arange(1, 17) ** 4)


class Poisoned(Classification):
    """Makes the loss, and so the parameters behind it, NaN wherever the batches of some numbers are trained on."""

    def __init__(self, numbers):
        super().__init__(10)
        pipeline = make_trainer(make_tiny_config(), jax.devices()[:1]).pipeline
        labels = np.asarray(pipeline.train["labels"])
        every = [int(fingerprint(labels[pipeline.train_inputs(n, 1)[0]])) for n in range(30)]
        assert len(set(every)) == 30
        object.__setattr__(self, "bad", jnp.array([every[n] for n in numbers]))

    def loss(self, outputs, inputs, targets):
        loss, metrics = super().loss(outputs, inputs, targets)
        return loss * jnp.where(jnp.any(fingerprint(targets) == self.bad), jnp.nan, 1.0), metrics


def without(config, workdir, numbers, task):
    """The run that never knew these batches."""
    workdir.mkdir()
    (workdir / "skipped.json").write_text(json.dumps({"batches": [{"batch": n} for n in numbers]}))
    fit(config, workdir, task=task)
    return lines(workdir)


@pytest.mark.parametrize("bad", [[0], [4], [4, 5], [3, 8]])
def test_rollback_is_the_run_without_the_batch(tiny_config, tmp_path, bad):
    """Bitwise, in front of the first checkpoint too; found while the next step is already under way."""
    config = tiny_config(steps=10, on_nan="rollback", log_every=5, checkpoint_every=2)
    task = Poisoned(bad)  # in both, for one program: another would be rounded differently
    expected = without(config, tmp_path / "without", bad, task)
    result = fit(config, tmp_path / "run", devices=jax.devices(), task=task)
    assert lines(tmp_path / "run") == expected
    assert result.skipped_batches == len(bad)
    skipped = json.loads((tmp_path / "run/skipped.json").read_text())["batches"]
    assert [s["batch"] for s in skipped] == bad
    assert all("became nan" in s["why"] and s["went_back_to"] < s["step"] for s in skipped)


@pytest.mark.parametrize("kill_at", [5, 7])
def test_a_rolled_back_run_that_is_killed_goes_on_without_the_batch(tiny_config, tmp_path, kill_at):
    config = tiny_config(steps=10, on_nan="rollback", log_every=5, checkpoint_every=2)
    task = Poisoned([4])
    expected = without(config, tmp_path / "without", [4], task)

    class DiesAfterRollback(DiesAt):
        def update(self, step, values, *, line):
            if (tmp_path / "run/skipped.json").exists():
                super().update(step, values, line=line)

    with pytest.raises(Killed):
        fit(config, tmp_path / "run", DiesAfterRollback(kill_at), task=task)
    assert fit(config, tmp_path / "run", task=task).skipped_batches == 1
    assert lines(tmp_path / "run") == expected


def test_rollback_gives_up_after_ten_batches(tiny_config, tmp_path):
    config = tiny_config(steps=20, on_nan="rollback", checkpoint_every=2)
    message = r"became nan at step 3 after 10 batches were left out; the last good checkpoint is that of step 2"
    with pytest.raises(UserError, match=message):
        fit(config, tmp_path / "run", task=Poisoned(range(2, 30)))


def test_stop_names_the_last_good_checkpoint(tiny_config, tmp_path):
    with pytest.raises(UserError, match=r"the loss became nan at step 5; the last good checkpoint is that of step 4,"):
        fit(tiny_config(steps=10, checkpoint_every=2), tmp_path / "run", task=Poisoned([4]))
    assert not (tmp_path / "run/skipped.json").exists()


def test_a_loss_that_jumps_stops_the_run(tiny_config, tmp_path):
    """At a factor of 1, any loss above the average and above guessing is a jump."""
    with pytest.raises(UserError, match=r"the loss jumped to \d\.\d+ \(on average it was \d\.\d+\) at step \d"):
        fit(tiny_config(steps=20, loss_jump=1.0), tmp_path / "run")
    fit(tiny_config(steps=20, loss_jump=0.0), tmp_path / "free")


def test_what_counts_as_a_jump():
    """The average replayed in NumPy; small losses may scatter by large factors, below guessing."""
    guard = LossGuard(math.log(10), jump=10.0)
    fine = {"update_norm": 1.0}
    average = None
    for number, loss in enumerate((30.0, 2.0, 0.01, 0.02, 22.0), start=1):
        guard.check(number, fine | {"loss": loss})
        average = loss if average is None else 0.95 * average + 0.05 * loss
        assert guard.average == pytest.approx(average)
    limit = 10 * max(average, math.log(10))
    with pytest.raises(Diverged, match="jumped") as raised:
        guard.check(6, fine | {"loss": limit * 1.001})
    assert raised.value.step == 6
    assert guard.average == pytest.approx(average), "what is refused does not count"
    guard.check(7, fine | {"loss": limit * 0.999})
    with pytest.raises(Diverged, match="update's norm became inf"):
        guard.check(8, {"loss": 1.0, "update_norm": math.inf})


def test_the_average_is_carried_by_checkpoints(tiny_config, tmp_path):
    """A resumed run judges a loss as the whole run does: the averages at the end are the same."""
    ends = []
    fit(tiny_config(), tmp_path / "run")
    for _ in range(2):
        ends.append(json.loads((tmp_path / "run/checkpoints/6/host/metadata").read_text())["loss_average"])
        (tmp_path / "run/result.json").unlink(missing_ok=True)
        shutil.rmtree(tmp_path / "run/checkpoints/6")
        fit(tiny_config(), tmp_path / "run")
    assert ends[0] == ends[1] and ends[0] > 0


def test_a_line_says_what_its_steps_took(tiny_config, tmp_path):
    fit(tiny_config(), tmp_path / "run")
    first, second = [x for x in RunRecord(tmp_path / "run").lines() if "loss" in x][:2]
    assert MACHINE_METRICS - {"device_memory"} <= first.keys(), "CPU devices do not report their memory"
    assert first["compile_seconds"] > 0 == second["compile_seconds"]
    for line in (first, second):
        assert line["images_per_second"] == pytest.approx(16 / line["step_seconds"], rel=1e-2)
        assert 0 <= line["data_wait"] <= 100
        assert 0.1 < line["host_memory"] < 100


def test_waiting_for_data_is_seen(tiny_config, tmp_path, monkeypatch):
    """With inputs that take four times as long as a step, most of the time is waiting."""
    fit(tiny_config(), tmp_path / "without")
    step_seconds = [x["step_seconds"] for x in RunRecord(tmp_path / "without").lines() if "step_seconds" in x]
    inputs = ResidentPipeline.train_inputs
    slow = lambda *a: (time.sleep(4 * max(step_seconds)), inputs(*a))[1]  # noqa: E731
    monkeypatch.setattr(ResidentPipeline, "train_inputs", slow)
    fit(tiny_config(), tmp_path / "run")
    waits = [x["data_wait"] for x in RunRecord(tmp_path / "run").lines() if "data_wait" in x]
    assert np.median(waits) > 50


def test_a_trace_of_the_steps_asked_for(tiny_config, tmp_path):
    fit(tiny_config(profile_steps=(3, 4)), tmp_path / "run")
    (file,) = (tmp_path / "run/profile").rglob("*.xplane.pb")
    names = [
        event.name
        for plane in jax.profiler.ProfileData.from_file(str(file)).planes
        for line in plane.lines
        for event in line.events
    ]
    assert names.count("train") == 2


@pytest.mark.parametrize(
    ("steps", "dispatches", "traced"),
    [
        ((3, 4), [1] * 8, [3, 4]),
        ((3, 4), [2] * 4, [4]),
        ((1, 1), [4, 4], [4]),
        ((6, 99), [2] * 4, [6, 8]),
        ((), [4], []),
    ],
)
def test_a_trace_takes_whole_dispatches(tmp_path, monkeypatch, steps, dispatches, traced):
    monkeypatch.setattr(jax.profiler, "start_trace", lambda directory: None)
    monkeypatch.setattr(jax.profiler, "stop_trace", lambda: None)
    trace, done, seen = Trace(steps, tmp_path), 0, []
    for count in dispatches:
        trace.start(done, count)
        done += count
        seen += [done] if trace.running else []
        if trace.ends(done):
            trace.stop()
    assert seen == traced


def test_checkpoints_by_the_clock(tiny_config, tmp_path):
    """So short a time is over at every training line."""
    config = tiny_config(checkpoint_every=100, checkpoint_minutes=1e-9, keep_checkpoints=9)
    fit(config, tmp_path / "run")
    assert sorted(p.name for p in (tmp_path / "run/checkpoints").iterdir() if p.name.isdigit()) == ["2", "4", "6"]
