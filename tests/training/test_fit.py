"""`fit`: the record it writes, going on after a kill, and what it refuses."""

import json
import shutil
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from resnet_jax.__main__ import main
from resnet_jax.data.pipeline import ResidentPipeline
from resnet_jax.data.sources import load_dataset
from resnet_jax.errors import UserError
from resnet_jax.evaluation.single_view import evaluate
from resnet_jax.tasks.classification import Classification
from resnet_jax.training import loop
from resnet_jax.training.checkpoint import Checkpoints
from resnet_jax.training.distributed import replicated
from resnet_jax.training.load_weights import load_weights
from resnet_jax.training.loop import fit
from resnet_jax.training.run_folder import RunFolder
from resnet_jax.training.run_record import MACHINE_METRICS, RunRecord
from resnet_jax.training.stepper import steps_to_dispatch
from resnet_jax.training.trainer import make_trainer
from tests.training.interruptions import DiesAt, Killed


def numbers(workdir):
    """Lines of metrics.jsonl without what depends on the clock."""
    return [{k: v for k, v in line.items() if k not in MACHINE_METRICS} for line in RunRecord(workdir).lines()]


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
    assert written["metrics"] == result.metrics
    assert written["metrics"].keys() == {"train_error", "test_error", "test_loss", "best_test_error"}
    assert written["metrics"]["best_test_error"] <= written["metrics"]["test_error"] <= 100
    assert written["versions"]["jax"] == jax.__version__
    assert written["hardware"]["platform"] == "cpu" and written["hardware"]["devices"] == 8
    assert len(written["config_hash"]) == 12 and written["commit"]
    lines = RunRecord(tmp_path / "run").lines()
    assert [(x["step"], "loss" in x) for x in lines] == [
        (2, True), (3, False), (4, True), (6, True), (6, False)
    ]  # fmt: skip
    assert all("train_error" in x for x in lines if "loss" in x)
    assert lines[-1]["test_error"] == result.metrics["test_error"]
    assert list((tmp_path / "run/tensorboard").iterdir())


def test_training_line_is_the_mean_of_its_steps(tiny_config, tmp_path):
    fit(tiny_config(log_every=1), tmp_path / "each")
    fit(tiny_config(log_every=3), tmp_path / "three")
    each = [x["loss"] for x in numbers(tmp_path / "each") if "loss" in x]
    three = [x["loss"] for x in numbers(tmp_path / "three") if "loss" in x]
    np.testing.assert_allclose(three, [np.mean(each[:3]), np.mean(each[3:])], rtol=1e-6)


def test_a_run_repeated_is_bitwise_itself(tiny_config, tmp_path):
    config = tiny_config()
    fit(config, tmp_path / "a")
    fit(config, tmp_path / "b")
    assert numbers(tmp_path / "a") == numbers(tmp_path / "b")
    assert_bitwise_equal(final_state(config, tmp_path / "a"), final_state(config, tmp_path / "b"))


@pytest.fixture(scope="module")
def whole(tiny_config, tmp_path_factory):
    """Config, lines and final state of a run that nobody kills, with lines every 3 steps."""
    config, workdir = tiny_config(log_every=3), tmp_path_factory.mktemp("whole")
    fit(config, workdir)
    return config, numbers(workdir), final_state(config, workdir)


@pytest.mark.parametrize("kill_at", [1, 3, 5])
def test_a_killed_run_carries_on_bitwise(whole, tmp_path, kill_at):
    """Checkpoints every 2 steps, lines every 3: the restored step lies inside a training line."""
    config, expected_lines, expected_state = whole
    with pytest.raises(Killed):
        fit(config, tmp_path / "killed", DiesAt(kill_at))
    assert not (tmp_path / "killed/result.json").exists()
    fit(config, tmp_path / "killed")
    assert numbers(tmp_path / "killed") == expected_lines
    assert_bitwise_equal(final_state(config, tmp_path / "killed"), expected_state)


def test_a_line_cut_short_by_a_kill_is_dropped(tmp_path):
    (tmp_path / "metrics.jsonl").write_text('{"step": 1, "loss": 2.0}\n{"step": 2, "lo')
    record = RunFolder(tmp_path)
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


class Steep(Classification):
    """Adds a term to the loss that is zero, and whose gradient is infinite."""

    def loss(self, outputs, inputs, targets):
        loss, metrics = super().loss(outputs, inputs, targets)
        return loss + jnp.sqrt(jnp.sum(outputs - jax.lax.stop_gradient(outputs))), metrics


def test_an_infinite_gradient_of_a_finite_loss_is_caught_before_it_is_saved(tiny_config, tmp_path):
    """The loss of that step is fine; the parameters behind it are not, and must not become a checkpoint."""
    with pytest.raises(UserError, match=r"the update's norm became (nan|inf) at step 1;"):
        fit(tiny_config(checkpoint_every=1), tmp_path / "run", task=Steep(10))
    assert not [p for p in (tmp_path / "run/checkpoints").iterdir() if p.name.isdigit()]


class Huge(Classification):
    """Adds a term to the loss that is zero, and whose gradient is finite and has a norm that float32 cannot hold."""

    def loss(self, outputs, inputs, targets):
        loss, metrics = super().loss(outputs, inputs, targets)
        return loss + 1e25 * jnp.sum(outputs - jax.lax.stop_gradient(outputs)), metrics


def test_an_update_that_hides_its_gradient_is_caught(tiny_config, tmp_path):
    """LAMB divides by the gradient's size, which leaves an update of a usual one: JSON cannot hold the norm."""
    with pytest.raises(UserError, match=r"the gradient norm became inf at step 1;"):
        fit(tiny_config(optimizer__name="lamb"), tmp_path / "run", task=Huge(10))


def test_the_schedule_reaches_the_record(tiny_config, tmp_path):
    """Warm-up over two steps, drops after 1/2 and 3/4 of eight: each rate at its step."""
    fields = {"warmup": "steps", "warmup_steps": 2, "warmup_rate": 0.001}
    config = tiny_config(
        steps=8, log_every=1, optimizer__learning_rate=0.1, **{f"schedule__{k}": v for k, v in fields.items()}
    )
    fit(config, tmp_path / "run")
    rates = [x["learning_rate"] for x in numbers(tmp_path / "run") if "loss" in x]
    np.testing.assert_allclose(rates, [0.001, 0.001, 0.1, 0.1, 0.01, 0.01, 0.001, 0.001], rtol=1e-6)


def test_a_cosine_behind_a_linear_warmup_reaches_the_record(tiny_config, tmp_path):
    """The warm-up takes the place of the cosine's first steps, as in timm, and nothing is above it."""
    fields = {"name": "cosine", "warmup": "linear", "warmup_steps": 3, "warmup_rate": 0.01}
    config = tiny_config(
        steps=8, log_every=1, optimizer__learning_rate=0.1, **{f"schedule__{k}": v for k, v in fields.items()}
    )
    fit(config, tmp_path / "run")
    rates = [x["learning_rate"] for x in numbers(tmp_path / "run") if "loss" in x]
    cosine = [0.05 * (1 + np.cos(np.pi * i / 8)) for i in range(8)]
    np.testing.assert_allclose(rates, [0.01, 0.04, 0.07, *cosine[3:]], rtol=1e-5)


def test_the_error_rule_ends_the_warmup_of_a_run(tiny_config, tmp_path):
    """The running error starts at 1 and falls by a twentieth of what the batches' errors say; replayed by hand."""
    config = tiny_config(steps=40, log_every=1, schedule__warmup="error", schedule__warmup_error=96.0)
    fit(config, tmp_path / "run")
    trained = [x for x in numbers(tmp_path / "run") if "loss" in x]
    average, expected = 100.0, []
    for line in trained:
        expected.append(average >= 96.0 and (not expected or expected[-1]))
        average += (line["train_error"] - average) / 20
    assert True in expected and False in expected[:20], "ahead of the schedule's first drop"
    assert [x["learning_rate"] == pytest.approx(0.01) for x in trained[:20]] == expected[:20]


def test_a_warmup_does_not_stay_above_the_schedule(tiny_config, tmp_path):
    """Nothing trains at a rate of zero error, so the rule never ends the warm-up; the drops still come."""
    fields = {"schedule__warmup": "error", "schedule__warmup_error": 0.0, "optimizer__learning_rate": 0.01}
    fields |= {"schedule__warmup_rate": 0.01, "schedule__warmup_error": 0.5}
    fit(tiny_config(steps=8, log_every=1, **fields), tmp_path / "run")
    rates = [x["learning_rate"] for x in numbers(tmp_path / "run") if "loss" in x]
    np.testing.assert_allclose(rates, [0.01] * 4 + [0.001] * 2 + [0.0001] * 2, rtol=1e-6)


@pytest.mark.parametrize("at_once", [2, 3, 6])
def test_several_steps_in_one_dispatch_record_the_same_run(tiny_config, tmp_path, monkeypatch, at_once):
    """The accelerators' way through the loop: 12 steps, lines of 6, and every dispatch as large as asked for."""
    intervals = {"steps": 12, "log_every": 6, "eval_every": 12, "checkpoint_every": 6}
    counts = []
    inputs = ResidentPipeline.train_inputs
    monkeypatch.setattr(
        ResidentPipeline,
        "train_inputs",
        lambda self, step, count, *a: (counts.append(count), inputs(self, step, count, *a))[1],
    )
    fit(tiny_config(**intervals), tmp_path / "single")
    assert counts == [1] * 12
    counts.clear()
    fit(tiny_config(**intervals, steps_per_dispatch=at_once), tmp_path / "several")
    assert counts == [at_once] * (12 // at_once)
    single, several = numbers(tmp_path / "single"), numbers(tmp_path / "several")
    assert [x.keys() for x in single] == [x.keys() for x in several]
    for a, b in zip(single, several, strict=True):
        np.testing.assert_allclose(list(b.values()), list(a.values()), rtol=1e-3, atol=1e-6)


def test_nan_inside_a_dispatch_is_found_at_its_step(tiny_config, tmp_path, monkeypatch):
    losses = iter([1.0, 1.0, 1.0, float("nan"), 1.0, 1.0])
    get = jax.device_get

    def with_nan(tree):
        return get(tree) | {"loss": np.array([next(losses) for _ in tree["loss"]])}

    monkeypatch.setattr(jax, "device_get", with_nan)
    with pytest.raises(UserError, match="the loss became nan at step 4;"):
        fit(tiny_config(log_every=6, eval_every=6, checkpoint_every=6, steps_per_dispatch=6), tmp_path / "run")


@pytest.mark.parametrize(
    ("platform", "fields", "expected"),
    [
        ("gpu", {"steps": 64_000, "log_every": 100, "eval_every": 400, "checkpoint_every": 2000}, 100),
        ("gpu", {"steps": 64_000, "log_every": 100, "eval_every": 390, "checkpoint_every": 2000}, 10),
        ("gpu", {"steps": 540, "log_every": 9, "eval_every": 27, "checkpoint_every": 54}, 9),
        ("gpu", {"steps": 64_000, "log_every": 200, "eval_every": 400, "checkpoint_every": 2000}, 100),
        ("cpu", {"steps": 64_000, "log_every": 100, "eval_every": 400, "checkpoint_every": 2000}, 1),
    ],
)
def test_size_of_a_dispatch(tiny_config, platform, fields, expected):
    device = SimpleNamespace(platform=platform)
    trainer = SimpleNamespace(
        config=tiny_config(**fields), mesh=SimpleNamespace(devices=np.array([device])),
        pipeline=SimpleNamespace(steps_per_dispatch=100, size_changes=()),
    )  # fmt: skip
    assert steps_to_dispatch(trainer.config, trainer.mesh, trainer.pipeline, 0) == expected
    # Resumed in between: single steps up to the next multiple.
    assert steps_to_dispatch(trainer.config, trainer.mesh, trainer.pipeline, 1) == 1


def test_evaluate_changes_nothing_and_says_what_it_passes_over(tiny_config, tmp_path, capsys):
    fit(tiny_config(), tmp_path / "run")
    shutil.rmtree(tmp_path / "run/checkpoints/6/state")
    before = sorted(p.relative_to(tmp_path) for p in tmp_path.rglob("*"))
    found = evaluate(tmp_path / "run")
    assert found.step == 4 and "checkpoint 6 cannot be read" in found.passed_over[0]
    with pytest.warns(UserWarning, match="checkpoint 6 cannot be read .*; the weights of step 4 are taken"):
        assert load_weights(tmp_path / "run").source["steps"] == 4
    Image.new("L", (8, 8)).save(tmp_path / "digit.png")
    assert main(["predict", f"--weights={tmp_path}/run", f"{tmp_path}/digit.png"]) == 0
    said = capsys.readouterr().err
    assert said.startswith("warning: checkpoint 6 cannot be read") and said.count("\n") == 1
    (tmp_path / "digit.png").unlink()
    assert sorted(p.relative_to(tmp_path) for p in tmp_path.rglob("*")) == before


def test_evaluate_takes_any_number_of_devices(tiny_config, tmp_path):
    """Trained on one device with a batch that eight cannot share."""
    result = fit(tiny_config(batch_size=15), tmp_path / "run", devices=jax.devices()[:1])
    assert evaluate(tmp_path / "run").test_error == pytest.approx(result.metrics["test_error"], abs=0.6)


def test_evaluate_finds_what_the_run_recorded(tiny_config, tmp_path):
    result = fit(tiny_config(), tmp_path / "run")
    found = evaluate(tmp_path / "run")
    assert found.test_error == result.metrics["test_error"]
    assert (found.examples, found.step, found.protocol) == (360, 6, "single_view")


def test_held_out_examples_replace_the_test_set(tiny_config, tmp_path):
    result = fit(tiny_config(data__held_out=100), tmp_path / "run")
    assert result.evaluated_on == "held_out"
    assert evaluate(tmp_path / "run").examples == 100


def test_datasets_are_read_once(tiny_config):
    assert load_dataset("digits") is load_dataset("digits")


def test_a_result_that_cannot_be_written_leaves_the_folder_to_others(tiny_config, tmp_path):
    """The same process tries again."""
    (tmp_path / "run/result.json").mkdir(parents=True)
    with pytest.raises(UserError, match="result.json") as kept:
        fit(tiny_config(), tmp_path / "run")
    (tmp_path / "run/result.json").rmdir()
    assert fit(tiny_config(), tmp_path / "run").metrics["test_error"] >= 0
    assert kept.value is not None  # its traceback holds the folder's lock, if nobody let it go
