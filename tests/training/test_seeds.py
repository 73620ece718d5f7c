"""Several seeds in one program: each is the run that it would be alone, in its own folder, to its own end."""

import io
import json
import os
import signal
import sys
import time
from types import SimpleNamespace

import jax
import numpy as np
import pytest

from resnet_jax.__main__ import main
from resnet_jax.errors import Stopped, UserError
from resnet_jax.training.loop import fit, fit_seeds
from resnet_jax.training.mesh import make_mesh
from resnet_jax.training.progress import NoProgress, PlainProgress
from resnet_jax.training.record import RunRecord
from resnet_jax.training.run import Run
from resnet_jax.training.stepper import Programs, Stepper
from tests.training.kills import lines

PACKINGS = ("vmap", "unrolled")

#: Whole dispatches of three steps between lines.
THREES = {"log_every": 3, "checkpoint_every": 3}


def several(tiny_config, count=3, **fields):
    return [tiny_config(seed=seed, **fields) for seed in range(count)]


def folders(path, count=3):
    return [path / f"seed{seed}" for seed in range(count)]


def numbers(folder, name):
    return np.array([line[name] for line in RunRecord(folder).lines() if name in line])


def errors(folder):
    return [numbers(folder, name).tolist() for name in ("train_error", "test_error")]


@pytest.fixture(scope="module")
def alone(tiny_config, tmp_path_factory):
    """Three runs, one by one."""
    path = tmp_path_factory.mktemp("alone")
    for config, folder in zip(several(tiny_config, **THREES), folders(path), strict=True):
        fit(config, folder)
    return path


@pytest.mark.parametrize("per_dispatch", [1, 3])
@pytest.mark.parametrize("packing", PACKINGS)
@pytest.mark.parametrize("devices", [1, 2])
def test_each_is_the_run_that_it_is_alone(tiny_config, alone, tmp_path, packing, per_dispatch, devices):
    """Six steps within float32 rounding, augmentation and order included; seeds differ by far more."""
    configs = several(tiny_config, steps_per_dispatch=per_dispatch, **THREES)
    results = fit_seeds(configs, folders(tmp_path), devices=jax.devices()[:devices], packing=packing)
    assert [result.seed for result in results] == [0, 1, 2]
    ends = []
    for ours, theirs, result in zip(folders(tmp_path), folders(alone), results, strict=True):
        ends.append(numbers(ours, "test_loss"))
        np.testing.assert_allclose(ends[-1], numbers(theirs, "test_loss"), rtol=2e-5)
        record = json.loads((ours / "result.json").read_text())
        assert record["hardware"]["runs_at_once"] == 3 and record["hardware"]["devices"] == devices
        assert record["config_hash"] == RunRecord(theirs).result().config_hash  # they are runs of one config
        assert "runs_at_once" not in RunRecord(theirs).result().hardware
        assert result.images_per_second > 0 and min(numbers(ours, "data_wait")) >= 0
    assert np.ptp(ends, axis=0).min() > 1e-3


@pytest.mark.parametrize("packing", PACKINGS)
def test_killed_together_they_go_on_bitwise(tiny_config, tmp_path, monkeypatch, packing):
    configs = several(tiny_config, 2, log_every=3)
    fit_seeds(configs, folders(tmp_path / "whole", 2), packing=packing)
    advance = Run._advance

    def dies(self, count):
        if self.config.seed == 1 and self.step >= 4:
            raise RuntimeError("killed")
        advance(self, count)

    monkeypatch.setattr(Run, "_advance", dies)
    with pytest.raises(RuntimeError, match="killed"):
        fit_seeds(configs, folders(tmp_path / "killed", 2), packing=packing)
    monkeypatch.setattr(Run, "_advance", advance)
    assert not list((tmp_path / "killed").glob("*/result.json"))
    fit_seeds(configs, folders(tmp_path / "killed", 2), packing=packing)
    for ours, theirs in zip(folders(tmp_path / "killed", 2), folders(tmp_path / "whole", 2), strict=True):
        assert lines(ours) == lines(theirs)


def test_runs_at_different_steps_share_a_program(tiny_config, alone, tmp_path, monkeypatch):
    """One went ahead alone; one is finished already, and only read; what is packed goes on alone as well."""
    configs, places = several(tiny_config, **THREES), folders(tmp_path)
    advance = Run._advance

    def dies(self, count):
        advance(self, count)
        if self.step == 3:
            self.checkpoints.wait()
            raise Stopped("killed here")

    monkeypatch.setattr(Run, "_advance", dies)
    with pytest.raises(Stopped):
        fit(configs[0], places[0])
    monkeypatch.setattr(Run, "_advance", advance)
    fit(configs[2], places[2])
    began = []
    steps = Run.steps
    monkeypatch.setattr(Run, "steps", lambda self: (began.append((self.config.seed, self.step)), steps(self))[1])
    fit_seeds(configs, places)
    assert began == [(0, 3), (1, 0)]
    for ours, theirs in zip(places, folders(alone), strict=True):
        np.testing.assert_allclose(numbers(ours, "test_loss"), numbers(theirs, "test_loss"), rtol=2e-5)
        assert errors(ours) == errors(theirs)


def test_one_that_diverges_does_not_end_the_others(tiny_config, tmp_path, monkeypatch, capsys):
    configs, places = several(tiny_config), folders(tmp_path)
    collect = Run._collect

    def poisoned(self, leave):
        if self.config.seed == 1 and self.step == 3:
            self.watch.complaint = lambda values: "the loss became nan"
        collect(self, leave)

    monkeypatch.setattr(Run, "_collect", poisoned)
    with pytest.raises(UserError, match="^seed1: the loss became nan at step 3"):
        fit_seeds(configs, places, PlainProgress(sys.stderr, seconds=0))
    assert [RunRecord(folder).result() is not None for folder in places] == [True, False, True]
    told = capsys.readouterr().err
    assert "cifar_resnet20 seed 1: seed1 failed: the loss became nan" in told and "seed 2: step 6/6" in told


def test_a_folder_that_cannot_be_used_does_not_end_the_others(tiny_config, tmp_path):
    configs, places = several(tiny_config), folders(tmp_path)
    places[1].mkdir()
    (places[1] / "skipped.json").write_text('{"batches": 1}')
    told = io.StringIO()
    with pytest.raises(UserError, match="^seed1: .*skipped.json is damaged"):
        fit_seeds(configs, places, PlainProgress(told))
    assert told.getvalue().startswith("seed1 failed: ")
    assert [RunRecord(folder).result() is not None for folder in places] == [True, False, True]
    (places[1] / "skipped.json").unlink()
    assert fit(configs[1], places[1]).seed == 1  # its folder was let go of


@pytest.mark.parametrize("at_once", [1, 2])
def test_what_a_pack_costs_is_what_its_members_share(at_once):
    """A device that takes 0.05 s for a dispatch: each member's steps take that, and its images/s are its own."""

    class Metric:
        def __init__(self):
            self.ready = time.monotonic() + 0.05

        def is_ready(self):
            return time.monotonic() >= self.ready

        def __array__(self, dtype=None, copy=None):
            time.sleep(max(0, self.ready - time.monotonic()))
            return np.zeros(1)

    def step(states, resident, inputs):
        made = {"loss": Metric()}
        return (0, made) if at_once == 1 else ((0,) * at_once, (made,) * at_once)

    pipeline = SimpleNamespace(train=None, train_inputs=lambda *a: np.zeros(1), send=lambda inputs, sharding: inputs)
    trainer = SimpleNamespace(pipeline=pipeline, mesh=make_mesh(jax.devices()[:1]))
    programs = Programs(trainer)
    programs.compiled[at_once, ((1,),)] = step
    steppers = [Stepper(trainer, programs) for _ in range(at_once)]
    for number in range(4):
        ready = [stepper.prepare(0, number, 1) for stepper in steppers]
        programs.run(ready)
        for stepper, dispatch in zip(steppers, ready, strict=True):
            stepper.dispatched(number, 1, dispatch.take()[1])
            list(stepper.collect())
    for stepper in steppers:
        found = stepper.meter.values(128)
        assert 0.05 <= found["step_seconds"] < 0.075
        assert found["images_per_second"] == pytest.approx(128 / found["step_seconds"], rel=0.01)


def test_one_that_goes_back_stays_in_the_program(tiny_config, tmp_path, monkeypatch):
    """It leaves a batch out and ends later than the others, with all its steps."""
    configs, places = several(tiny_config, on_nan="rollback"), folders(tmp_path)
    collect, poison = Run._collect, [True]

    def poisoned(self, leave):
        if self.config.seed == 1 and self.step == 5 and poison:
            poison.clear()
            complaint = self.watch.complaint
            self.watch.complaint = lambda values: "the loss became nan" if not poison else complaint(values)
        collect(self, leave)

    monkeypatch.setattr(Run, "_collect", poisoned)
    results = fit_seeds(configs, places)
    assert [result.skipped_batches for result in results] == [0, 1, 0]
    assert [result.steps for result in results] == [6, 6, 6]
    assert [x["step"] for x in lines(places[1])] == [x["step"] for x in lines(places[0])]


class Signals(NoProgress):
    def update(self, step, values, *, line):
        if step == 3 and not line:
            os.kill(os.getpid(), signal.SIGTERM)


def test_a_signal_saves_all_of_them(tiny_config, tmp_path):
    """The signal comes between seed 0 and the others, and all of them stop after the same step."""
    configs, places = several(tiny_config, checkpoint_every=100, log_every=1), folders(tmp_path)
    with pytest.raises(Stopped, match="SIGTERM after step 4 of 6; .*3 of 3 seeds at once were stopped so"):
        fit_seeds(configs, places, Signals())
    assert [[p.name for p in (folder / "checkpoints").glob("[0-9]")] for folder in places] == [["4"]] * 3
    fit_seeds(configs, folders(tmp_path / "whole"))
    fit_seeds(configs, places)
    for ours, theirs in zip(places, folders(tmp_path / "whole"), strict=True):
        assert lines(ours) == lines(theirs)


def test_what_cannot_be_together(tiny_config, tmp_path):
    one, other = several(tiny_config, 2)
    with pytest.raises(UserError, match="cannot share a folder"):
        fit_seeds([one, other], [tmp_path / "a", tmp_path / "a"])
    with pytest.raises(UserError, match="differ in their seed alone, not in batch_size"):
        fit_seeds([one, tiny_config(seed=1, batch_size=8)], folders(tmp_path, 2))
    with pytest.raises(UserError, match="unknown packing 'unroled'; did you mean unrolled"):
        fit_seeds([one, other], folders(tmp_path, 2), packing="unroled")
    for configs, places in (([], []), ([one, other], [tmp_path / "a"]), ([one], folders(tmp_path, 2))):
        with pytest.raises(UserError, match="each run needs one of both"):
            fit_seeds(configs, places)
    with pytest.raises(UserError, match="profile_steps traces one run"):
        fit_seeds(several(tiny_config, 2, profile_steps=(1, 2)), folders(tmp_path, 2))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--seeds=0,x"], "--seeds=0,x: 'x' is no whole number"),
        (["--seeds=0,-1"], "--seeds=0,-1: '-1' is no whole number"),
        (["--seeds=3,1,3"], "--seeds=3,1,3 names a seed twice"),
        (["--seeds=0,4294967296"], "config.seed=4294967296 must be below 2**32"),
        (["--seeds="], "--seeds= is empty"),
        (["--seeds=0,1", "--config.seed=7"], "config.seed=7 and --seeds=0,1: give one of them"),
        (["--packing=vmap"], "--packing is for several runs"),
        (["--seeds=0,1", "--packing=tight"], "packing"),
    ],
)
def test_mistakes_on_the_command_line(tmp_path, capsys, arguments, words):
    command = ["train", "--config=configs/digits.py:resnet20", f"--workdir={tmp_path / 'run'}", "--num_processes=1"]
    assert main([*command, *arguments]) == 2
    told = capsys.readouterr().err
    assert words in told and len(told.strip().splitlines()) == 1
    assert not (tmp_path / "run").exists()


def test_the_command(tmp_path, capsys):
    fields = {"steps": 4, "log_every": 2, "eval_every": 4, "checkpoint_every": 4, "batch_size": 16}
    changed = [f"--config.{name}={value}" for name, value in fields.items()]
    net = ["--config.model.stage_sizes=(1,1,1)", "--config.model.widths=(4,8,8)"]
    command = ["train", "--config=configs/digits.py:resnet20", f"--workdir={tmp_path}", "--seeds=5,2", *changed]
    assert main([*command, *net, "--num_processes=1"]) == 0
    told = capsys.readouterr().out.splitlines()
    found = [RunRecord(tmp_path / f"seed{seed}").result().test_error for seed in (5, 2)]
    mean, deviation = np.mean(found), np.std(found, ddof=1)
    assert told[-1] == f"2 seeds: test error {mean:.2f} % on average, standard deviation {deviation:.2f}"
    assert "seed 5:" in told[0] and told[0].endswith("seed5") and "seed 2:" in told[1]
