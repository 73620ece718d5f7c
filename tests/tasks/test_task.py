"""A second task of a dozen lines: the loop, checkpoints, records and progress take it as they take classification."""

import io
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from resnet_jax.errors import UserError
from resnet_jax.tasks.choose import task_type
from resnet_jax.tasks.task import Task, heading, in_words
from resnet_jax.training.checkpoint import read_newest
from resnet_jax.training.distributed import replicated
from resnet_jax.training.loop import fit
from resnet_jax.training.progress import PlainProgress
from resnet_jax.training.trainer import make_trainer
from tests.training.interruptions import DiesAt, Killed
from tests.training.kills import lines


class Autoencoding(Task):
    """Trains a net to give its input back."""

    best_metric, shown = "test_loss", {"test_loss": "nats"}

    def example_losses(self, outputs, inputs, targets):
        return jnp.mean((outputs - inputs) ** 2, axis=(1, 2, 3))


class Autoencoder(nn.Module):
    """Squeezes digits through four numbers."""

    @nn.compact
    def __call__(self, x, train=False):
        code = nn.Dense(4)(x.reshape(len(x), -1))
        return nn.Dense(64)(nn.relu(code)).reshape(x.shape)


@pytest.fixture
def config(tiny_config):
    return tiny_config(steps=40, log_every=10, eval_every=10, checkpoint_every=10, schedule__warmup="none")


def test_an_autoencoder_trains_is_killed_and_goes_on(config, tmp_path):
    own = {"task": Autoencoding(), "model": Autoencoder(), "devices": jax.devices()[:1]}
    stream = io.StringIO()
    whole = fit(config, tmp_path / "whole", PlainProgress(stream, seconds=0), **own)
    with pytest.raises(Killed):
        fit(config, tmp_path / "killed", DiesAt(25), **own)
    assert fit(config, tmp_path / "killed", **own).metrics == whole.metrics
    assert lines(tmp_path / "killed") == lines(tmp_path / "whole")

    tested = [line["test_loss"] for line in lines(tmp_path / "whole") if "test_loss" in line]
    assert len(tested) == 4 and tested[-1] < 0.9 * tested[0]
    written = json.loads((tmp_path / "whole/result.json").read_text())["metrics"]
    assert written == {"test_loss": tested[-1], "best_test_loss": min(tested)} == whole.metrics
    assert f"test loss {tested[-1]:.2f} nats" in stream.getvalue().splitlines()[-1]

    # The error by hand, of the parameters that the checkpoint holds.
    trainer = make_trainer(config, jax.devices()[:1], task=own["task"], model=own["model"])
    restored = read_newest(tmp_path / "whole/checkpoints", trainer.init(), replicated(trainer.mesh))
    images = np.asarray(trainer.pipeline.eval_batch(trainer.pipeline.test, np.arange(360))[0])
    params = jax.device_get(restored.state.params)
    code = images.reshape(360, -1) @ params["Dense_0"]["kernel"] + params["Dense_0"]["bias"]
    again = np.maximum(code, 0) @ params["Dense_1"]["kernel"] + params["Dense_1"]["bias"]
    assert np.mean((again - images.reshape(360, -1)) ** 2) == pytest.approx(tested[-1], rel=1e-5)


class Upwards(Autoencoding):
    """The same, with more of a metric being better: the least like its input wins."""

    best_metric, lower_is_better = "test_loss", False


@pytest.mark.parametrize(("task", "pick"), [(Autoencoding(), min), (Upwards(), max)])
def test_the_task_says_what_is_best(config, tmp_path, task, pick):
    config.keep_checkpoints = 1
    result = fit(config, tmp_path / "run", task=task, model=Autoencoder(), devices=jax.devices()[:1])
    tested = {line["step"]: line["test_loss"] for line in lines(tmp_path / "run") if "test_loss" in line}
    best = pick(tested, key=tested.get)
    assert result.metrics["best_test_loss"] == tested[best]
    kept = {int(path.name) for path in (tmp_path / "run/checkpoints").iterdir() if path.name.isdigit()}
    assert kept == {best, 40}


def test_a_warmup_by_an_error_that_the_task_does_not_measure_is_refused(config, tmp_path):
    """It would never end."""
    config.schedule.warmup = "error"
    with pytest.raises(UserError, match="warmup=error needs a task whose loss measures `error`"):
        fit(config, tmp_path / "run", task=Autoencoding(), model=Autoencoder(), devices=jax.devices()[:1])


@pytest.mark.parametrize(
    ("task", "metrics", "evaluated_on", "words"),
    [
        ("classification", {"train_error": 1.2, "test_error": 8.27, "test_loss": 0.3}, "test",
         "training error 1.20 %, test error 8.27 %"),
        ("classification", {"test_error": 8.27, "best_test_error": 8.1}, "held_out",
         "held-out error 8.27 % (lowest of all evaluations 8.10 %)"),
        ("segmentation", {"test_mean_iou": 70.0, "best_test_mean_iou": 71.5}, "validation",
         "validation mean IoU 70.00 % (highest of all evaluations 71.50 %)"),
        ("detection", {"test_ap50": 70.0}, "test", "test AP50 70.00 %"),
    ],
)  # fmt: skip
def test_metrics_in_words(task, metrics, evaluated_on, words):
    """A number on held-out images is never called one of the test set, nor the best of all evaluations the last."""
    assert in_words(task_type(task), metrics, evaluated_on) == words
    assert in_words(Autoencoding(), {"test_loss": 1.0, "best_test_loss": 0.5}) == (
        "test loss 1.00 nats (lowest of all evaluations 0.50 nats)"
    )
    assert (
        in_words(Task, {"test_loss": 1.0, "best_test_loss": 0.5}) == "test loss 1.00 (lowest of all evaluations 0.50)"
    )
    assert heading("train_pixel_accuracy", "held_out") == "training pixel accuracy"
