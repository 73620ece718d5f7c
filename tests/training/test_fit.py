"""`fit`: the record it writes, going on after a kill, and what it refuses."""

import json

import jax
import numpy as np
import pytest

from resnet_jax.data.sources import load_dataset
from resnet_jax.errors import UserError
from resnet_jax.evaluation.single_view import evaluate
from resnet_jax.training import loop, step
from resnet_jax.training.checkpoint import Checkpoints
from resnet_jax.training.loop import fit
from resnet_jax.training.mesh import replicated
from resnet_jax.training.record import RunRecord
from resnet_jax.training.trainer import make_trainer

TIMING = {"images_per_second"}


def numbers(workdir):
    """Lines of metrics.jsonl without what depends on the clock."""
    return [{k: v for k, v in line.items() if k not in TIMING} for line in RunRecord(workdir).lines()]


def final_state(config, workdir):
    trainer = make_trainer(config)
    checkpoints = Checkpoints(workdir / "checkpoints", 2)
    state = checkpoints.restore(trainer.init(), replicated(trainer.mesh)).state
    checkpoints.close()
    return jax.tree.map(np.asarray, state)


def assert_bitwise_equal(a, b):
    jax.tree.map(np.testing.assert_array_equal, a, b)


def test_record_of_a_run(tiny_config, tmp_path):
    config = tiny_config()
    result = fit(config, tmp_path / "run")
    written = json.loads((tmp_path / "run/result.json").read_text())
    assert written["model"] == "cifar_resnet20"
    assert written["seed"] == 0 and written["steps"] == 6
    assert (written["train_error"], written["test_error"]) == (result.train_error, result.test_error)
    assert written["best_test_error"] <= written["test_error"] <= 100
    assert written["versions"]["jax"] == jax.__version__
    assert written["hardware"]["platform"] == "cpu" and written["hardware"]["devices"] == 8
    assert len(written["config_hash"]) == 12 and written["commit"]
    lines = RunRecord(tmp_path / "run").lines()
    assert [(x["step"], "loss" in x) for x in lines] == [
        (2, True), (3, False), (4, True), (6, True), (6, False)
    ]  # fmt: skip
    assert all("train_error" in x for x in lines if "loss" in x)
    assert lines[-1]["test_error"] == result.test_error
    assert list((tmp_path / "run/tensorboard").iterdir())


def test_training_line_is_the_mean_of_its_steps(tiny_config, tmp_path):
    fit(tiny_config(log_every=1), tmp_path / "each")
    fit(tiny_config(log_every=3), tmp_path / "three")
    each = [x["loss"] for x in numbers(tmp_path / "each") if "loss" in x]
    three = [x["loss"] for x in numbers(tmp_path / "three") if "loss" in x]
    np.testing.assert_allclose(three, [np.mean(each[:3]), np.mean(each[3:])], rtol=1e-6)


def test_last_epoch_error_weighs_lines_by_their_steps():
    lines = [{"step": s, "train_error": e} for s, e in ((10, 90.0), (20, 50.0), (25, 20.0))]
    assert loop._last_epoch_error(lines, epoch=10) == pytest.approx((50 * 10 + 20 * 5) / 15)
    assert loop._last_epoch_error(lines, epoch=5) == 20.0
    assert loop._last_epoch_error(lines, epoch=1000) == pytest.approx((90 * 10 + 50 * 10 + 20 * 5) / 25)


def test_a_run_repeated_is_bitwise_itself(tiny_config, tmp_path):
    config = tiny_config()
    fit(config, tmp_path / "a")
    fit(config, tmp_path / "b")
    assert numbers(tmp_path / "a") == numbers(tmp_path / "b")
    assert_bitwise_equal(final_state(config, tmp_path / "a"), final_state(config, tmp_path / "b"))


class Killed(Exception):
    pass


@pytest.mark.parametrize("kill_at", [1, 3, 5])
def test_a_killed_run_carries_on_bitwise(tiny_config, tmp_path, monkeypatch, kill_at):
    """Checkpoints every 2 steps, lines every 3: the restored step lies inside a training line."""
    config = tiny_config(log_every=3)
    fit(config, tmp_path / "whole")

    advance = loop._Run._advance

    def dies(self, count):
        if self.step >= kill_at:
            raise Killed
        advance(self, count)

    monkeypatch.setattr(loop._Run, "_advance", dies)
    with pytest.raises(Killed):
        fit(config, tmp_path / "killed")
    assert not (tmp_path / "killed/result.json").exists()
    monkeypatch.setattr(loop._Run, "_advance", advance)
    fit(config, tmp_path / "killed")
    assert numbers(tmp_path / "killed") == numbers(tmp_path / "whole")
    assert_bitwise_equal(final_state(config, tmp_path / "killed"), final_state(config, tmp_path / "whole"))


def test_a_line_cut_short_by_a_kill_is_dropped(tmp_path):
    (tmp_path / "metrics.jsonl").write_text('{"step": 1, "loss": 2.0}\n{"step": 2, "lo')
    record = RunRecord(tmp_path)
    record.truncate(5)
    record.append(2, {"loss": 1.0})
    record.close()
    assert record.lines() == [{"step": 1, "loss": 2.0}, {"step": 2, "loss": 1.0}]


def test_a_finished_run_is_only_read(tiny_config, tmp_path, monkeypatch):
    config = tiny_config()
    first = fit(config, tmp_path / "run")
    monkeypatch.setattr(loop, "make_trainer", lambda *_: pytest.fail("trained again"))
    assert fit(config, tmp_path / "run") == first


def test_execution_fields_do_not_make_another_run(tiny_config, tmp_path):
    first = fit(tiny_config(), tmp_path / "run")
    assert fit(tiny_config(checkpoint_every=5, keep_checkpoints=1), tmp_path / "run") == first


@pytest.mark.parametrize("finished", [True, False])
def test_another_configs_folder_is_refused_with_the_fields(tiny_config, tmp_path, finished):
    fit(tiny_config(), tmp_path / "run")
    if not finished:
        (tmp_path / "run/result.json").unlink()
    before = (tmp_path / "run/metrics.jsonl").read_bytes()
    with pytest.raises(UserError, match=r"another config .*seed: 0 there, 3 here"):
        fit(tiny_config(seed=3), tmp_path / "run")
    assert (tmp_path / "run/metrics.jsonl").read_bytes() == before


def test_nan_stops_with_step_and_keeps_the_record(tiny_config, tmp_path):
    config = tiny_config(steps=40, schedule__warmup="none", optimizer__learning_rate=1e30, log_every=1)
    with pytest.raises(UserError, match=r"the loss became (nan|inf) at step (\d+); .*kept"):
        fit(config, tmp_path / "run")
    lines = RunRecord(tmp_path / "run").lines()
    assert lines and all(np.isfinite(x.get("loss", 0)) for x in lines)
    assert not (tmp_path / "run/result.json").exists()


def test_an_infinite_gradient_of_a_finite_loss_is_caught_before_it_is_saved(tiny_config, tmp_path, monkeypatch):
    """The loss of that step is fine; the parameters behind it are not, and must not become a checkpoint."""
    make = step.make_gradients

    def explode(model):
        def gradients(*args):
            grads, stats, metrics = make(model)(*args)
            return jax.tree.map(lambda g: g * np.inf, grads), stats, metrics

        return gradients

    monkeypatch.setattr(step, "make_gradients", explode)
    with pytest.raises(UserError, match=r"the update's norm became nan at step 1;"):
        fit(tiny_config(checkpoint_every=1), tmp_path / "run")
    assert not [p for p in (tmp_path / "run/checkpoints").iterdir() if p.name.isdigit()]


def test_evaluate_finds_what_the_run_recorded(tiny_config, tmp_path):
    result = fit(tiny_config(), tmp_path / "run")
    found = evaluate(tmp_path / "run")
    assert found.test_error == result.test_error
    assert (found.examples, found.step, found.protocol) == (360, 6, "single_view")


def test_held_out_examples_replace_the_test_set(tiny_config, tmp_path):
    result = fit(tiny_config(data__held_out=100), tmp_path / "run")
    assert result.evaluated_on == "held_out"
    assert evaluate(tmp_path / "run").examples == 100


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"batch_size": 12}, "batch_size=12 is not divisible by the 8 devices; 8 or 16"),
        ({"steps": 0}, "steps=0 must be 1 or more"),
        ({"steps": -5}, "steps=-5 must be 1 or more"),
        ({"seed": -1}, "seed=-1"),
        ({"model__name": "cifar_resnet21"}, "unknown net 'cifar_resnet21'; did you mean .*cifar_resnet20"),
        ({"model__shortcut": "D"}, "unknown shortcut 'D'"),
        ({"model__widths": (16, 8, 8)}, "cannot narrow"),
        ({"model__bn_group_size": 5}, "bn_group_size=5 does not divide"),
        ({"accumulate": 3}, "accumulate=3 does not divide"),
        ({"accumulate": 4}, "micro-batches of 4 is not divisible by the 8 devices"),
        ({"accumulate": 2, "model__bn_group_size": 16}, "bn_group_size=16 does not divide"),
        ({"optimizer__name": "adam"}, "optimizer.name='adam' must be one of sgd, lars"),
        ({"model__dropout": 0.5}, "has no field 'dropout'"),
        ({"data__name": "cifar11"}, "unknown dataset 'cifar11'; did you mean cifar10"),
        ({"data__normalization": "imagenet"}, "RGB"),
        ({"data__held_out": 5000}, "held_out=5000"),
        ({"data__data_dir": "/tmp"}, "data_dir=/tmp is not for digits"),
        ({"dtype": "float16"}, "dtype='float16' must be one of float32, bfloat16"),
        ({"schedule__boundaries": (32000, 48000)}, "fractions"),
        ({"schedule__warmup": "linear"}, "none, steps, error, linear"),
    ],
)
def test_bad_configs_are_refused_before_anything_is_written(tiny_config, tmp_path, fields, message):
    with pytest.raises(UserError, match=message):
        fit(tiny_config(**fields), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_unwritable_workdir(tiny_config, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot write to workdir"):
        fit(tiny_config(), tmp_path / "file/run")


def test_datasets_are_read_once(tiny_config):
    assert load_dataset("digits") is load_dataset("digits")
