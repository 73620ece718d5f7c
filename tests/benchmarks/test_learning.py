"""A run beside another implementation: the same weights and batches, shown by plain SGD that meets the run's record."""

import jax
import numpy as np
import pytest

from benchmarks import learning
from benchmarks.__main__ import main
from resnet_jax.errors import UserError
from resnet_jax.training.loop import fit
from resnet_jax.training.step import make_gradients
from resnet_jax.training.trainer import make_trainer

NO_DECAY = {"optimizer.weight_decay": 0.0, "schedule.warmup": "none", "log_every": 1}


def plain_sgd(trainer, state):
    """Momentum SGD of a textbook, on whatever images and labels it is given."""
    gradients = jax.jit(make_gradients(trainer.model, trainer.task))
    held = {"params": state.params, "stats": state.batch_stats, "v": jax.tree.map(np.zeros_like, state.params)}

    def step(images, labels, rate):
        grads, held["stats"], metrics = gradients(held["params"], held["stats"], images, labels, jax.random.key(0))
        held["v"] = jax.tree.map(lambda v, g: 0.9 * v + g, held["v"], grads)
        held["params"] = jax.tree.map(lambda p, v: p - rate * v, held["params"], held["v"])
        return float(metrics["loss"]), float(metrics["error"])

    return "plain SGD", step


def test_the_other_sees_the_runs_weights_and_batches(tiny_config, tmp_path):
    """Augmented as the run's were: textbook SGD on them comes to the losses and errors that the run recorded."""
    fit(tiny_config(**NO_DECAY), tmp_path / "run")
    found = learning.measure(str(tmp_path / "run"), 6, begin=plain_sgd)
    rows = found["rows"]
    assert [row["step"] for row in rows] == [1, 2, 3, 4, 5, 6]
    for row in rows:
        assert row["peer_loss"] == pytest.approx(row["loss"], rel=1e-3)
        assert row["peer_train_error"] == pytest.approx(row["train_error"], abs=100 / 16)
    text = learning.report(found, parts=2)
    coarse = learning.report(found | {"rows": [rows[2], rows[5]]})
    assert [line.split(" |")[0] for line in coarse.splitlines()[2:]] == ["| 1 to 3", "| 4 to 6"]
    assert "| 1 to 1 |" in text and "| 2 to 3 |" in text and "| 4 to 6 |" in text


def test_pytorch_takes_the_same_way(tiny_config, tmp_path):
    """With statistics over groups and decay on kernels alone."""
    pytest.importorskip("torch", reason="PyTorch is not installed (benchmarks/requirements-peers.txt)")
    fields = NO_DECAY | {"model.bn_group_size": 8, "optimizer.weight_decay": 0.1}
    fit(tiny_config(**fields), tmp_path / "run")
    for row in learning.measure(str(tmp_path / "run"), 6)["rows"]:
        assert row["peer_loss"] == pytest.approx(row["loss"], rel=1e-3)


@pytest.mark.parametrize(("fields", "said"), [
    ({"optimizer.nesterov": True}, "SGD without Nesterov"),
    ({"regularization.label_smoothing": 0.1}, "without mixed images, softened labels"),
    ({"loss": "binary_cross_entropy"}, "plain cross-entropy of whole batches"),
    ({"accumulate": 2, "model.bn_group_size": 8}, "micro-batches"),
    ({"finetune.layer_decay": 0.9}, "config.finetune"),
])  # fmt: skip
def test_a_recipe_that_the_other_lacks_is_refused(tiny_config, monkeypatch, fields, said):
    """Soft labels would else be cut to whole numbers, and others compared with another recipe, in silence."""
    monkeypatch.setattr(learning.pytorch, "import_torch", lambda: None)
    trainer = make_trainer(tiny_config(**NO_DECAY | fields), jax.devices()[:1])
    with pytest.raises(UserError, match=said):
        learning.begin_pytorch(trainer, None)


def test_mistakes(tiny_config, tmp_path, capsys):
    fit(tiny_config(), tmp_path / "run")
    with pytest.raises(UserError, match="run has no line of step 7; the last before it is of step 6"):
        learning.measure(str(tmp_path / "run"), 7, begin=plain_sgd)
    assert main(["learning", f"--run={tmp_path / 'nowhere'}"]) == 2
    assert len(capsys.readouterr().err.strip().splitlines()) == 1
