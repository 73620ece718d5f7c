"""Early stopping: when a run ends, which weights are kept, that a kill changes neither, and never on a test set."""

import json
import shutil
import signal

import jax
import pytest

from resnet_jax.errors import Stopped, UserError
from resnet_jax.evaluation.single_view import evaluate
from resnet_jax.tasks.classification import Classification
from resnet_jax.training.loop import fit
from resnet_jax.training.progress import ProgressDisplay
from resnet_jax.training.run_record import RunRecord
from resnet_jax.training.stopping import EarlyStopping
from resnet_jax.training.trainer import Trainer, make_trainer
from tests.training.interruptions import DiesAt, Killed, Signals

#: By step: the lowest comes at step 3 and again at step 4, and two evaluations without progress end the run at step 5.
ERRORS = {1: 50.0, 2: 60.0, 3: 40.0, 4: 40.0, 5: 45.0, 6: 10.0}


def test_it_counts_evaluations_since_the_lowest():
    task = Classification(10)
    stopping, seen = EarlyStopping(task, 2), []
    for step, error in ERRORS.items():
        seen.append((stopping.update(step, {"test_error": error}), stopping.over))
        if stopping.over:
            break
    assert seen == [(True, False), (False, False), (True, False), (False, False), (False, True)]
    assert (stopping.best_step, stopping.best) == (3, 40.0)
    lines = [{"step": s, "test_error": e} for s, e in ERRORS.items() if s <= 5] + [{"step": 5, "loss": 1.0}]
    assert EarlyStopping.from_lines(task, 2, lines) == stopping
    assert not EarlyStopping.from_lines(task, 0, lines).over


def test_a_run_ends_with_its_best_weights_and_a_kill_changes_nothing(tiny_config, tmp_path, monkeypatch):
    """Killed at step 4, behind the best and ahead of the end; checkpoints are due at the end alone."""
    config = tiny_config(
        early_stopping__patience=2, eval_every=1, checkpoint_every=6, data__eval_split="held_out",
        data__held_out_share=0.1, keep_checkpoints=1,
    )  # fmt: skip
    evaluate_for_real = Trainer.evaluate

    def scripted(self, state):
        return evaluate_for_real(self, state) | {"test_error": ERRORS[int(state.step)]}

    monkeypatch.setattr(Trainer, "evaluate", scripted)
    with pytest.raises(Killed):
        fit(config, tmp_path / "run", DiesAt(4), devices=jax.devices()[:1])
    result = fit(config, tmp_path / "run", devices=jax.devices()[:1])
    assert (result.stopped_step, result.kept_step, result.metrics["test_error"]) == (5, 3, 40.0)
    assert (result.steps, result.evaluated_on) == (6, "held_out")
    assert [x["step"] for x in RunRecord(tmp_path / "run").lines() if "test_error" in x] == [1, 2, 3, 4, 5]
    assert [p.name for p in (tmp_path / "run/checkpoints").iterdir() if p.name.isdigit()] == ["3"]
    found = evaluate(tmp_path / "run")
    assert (found.step, found.evaluated_on, found.examples) == (3, "held_out", 142)  # a tenth of each class, rounded
    assert fit(config, tmp_path / "run") == result


@pytest.fixture
def best_at_3(tiny_config, monkeypatch):
    """A config whose best step is 3 of 8, and that keeps one checkpoint beside it."""
    evaluate_for_real = Trainer.evaluate

    def scripted(self, state):
        return evaluate_for_real(self, state) | {"test_error": 40.0 if int(state.step) == 3 else 50.0}

    monkeypatch.setattr(Trainer, "evaluate", scripted)
    return tiny_config(
        steps=8, early_stopping__patience=4, eval_every=1, log_every=1, checkpoint_every=1, data__eval_split="held_out",
        data__held_out_share=0.1, keep_checkpoints=1,
    )  # fmt: skip


def check_finished(config, workdir):
    """It ends as a run that nobody stopped: its best weights are kept, and tested."""
    result = fit(config, workdir, devices=jax.devices()[:1])
    assert (result.stopped_step, result.kept_step) == (7, 3)
    assert steps_of(workdir) == [3]
    evaluated = evaluate(workdir)
    assert (evaluated.step, evaluated.passed_over) == (3, ())
    assert [x["step"] for x in RunRecord(workdir).lines() if "test_error" in x] == [1, 2, 3, 4, 5, 6, 7]


def steps_of(workdir):
    return sorted(int(p.name) for p in (workdir / "checkpoints").iterdir() if p.name.isdigit())


def test_the_best_survives_a_signal_and_restarts(best_at_3, tmp_path):
    """Stopped behind the best: what it is must be known to the next processes, which keep one checkpoint beside it."""
    for step in (3, 5):
        with pytest.raises(Stopped):
            fit(best_at_3, tmp_path / "run", Signals(step, signal.SIGTERM), devices=jax.devices()[:1])
    assert steps_of(tmp_path / "run") == [3, 6]
    check_finished(best_at_3, tmp_path / "run")
    # A run of an early version may have lost them.
    result = json.loads((tmp_path / "run/result.json").read_text())
    (tmp_path / "run/result.json").write_text(json.dumps(result | {"kept_step": 5}))
    assert "kept the weights of step 5, whose checkpoint is lost" in evaluate(tmp_path / "run").passed_over[0]


@pytest.mark.parametrize("damage", ["gone", "damaged"])
def test_a_best_that_is_lost_is_made_again(best_at_3, tmp_path, damage):
    """From the checkpoint before it, or from the beginning: here there is none before."""
    with pytest.raises(Stopped):
        fit(best_at_3, tmp_path / "run", Signals(4, signal.SIGTERM), devices=jax.devices()[:1])
    best = tmp_path / "run/checkpoints/3"
    shutil.rmtree(best if damage == "gone" else best / "state")
    notes = Notes()
    fit(best_at_3, tmp_path / "run", notes, devices=jax.devices()[:1])
    assert any("checkpoint of step 3, which had the best test error, is lost" in note for note in notes.said)
    check_finished(best_at_3, tmp_path / "run")


class Notes(ProgressDisplay):
    def __init__(self):
        self.said = []

    def note(self, text):
        self.said.append(text)


def test_nothing_is_chosen_on_a_test_set(tiny_config):
    for fields in ({}, {"data__held_out_share": 0.2}):  # digits have a test set, which comes first
        with pytest.raises(UserError, match="would choose the weights on the test images of digits; .*held_out"):
            make_trainer(tiny_config(early_stopping__patience=2, **fields), jax.devices()[:1])
