"""Gradient norms against finite differences, training's own gradient and an explicit composition."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from resnet_jax.analysis import gradients
from resnet_jax.analysis.gradients import (
    make_gradient_norms,
    measurement_steps,
    run_gradients,
    train_and_measure,
    weighted_layers,
)
from resnet_jax.errors import UserError
from resnet_jax.models import ResNet
from resnet_jax.models.summary import summarize
from resnet_jax.tasks.classification import Classification
from resnet_jax.training.loop import fit
from resnet_jax.training.step import make_gradients
from resnet_jax.training.trainer import make_trainer
from tests.models import reference as ref

LABELS = np.array([0, 3, 1, 2, 4])


def make(**fields):
    net = ResNet(
        **{"stage_sizes": (1, 1), "widths": (4, 6), "stem": "cifar", "num_classes": 5, "shortcut": "A"} | fields
    )
    x = ref.images(5, 8, 8, 3)
    layers = weighted_layers(summarize(net, "", 8))
    return net, ref.random_variables(net, x), x, layers


def measured(net, variables, x, layers):
    norms = jax.jit(make_gradient_norms(net, Classification(net.num_classes), layers))
    found = norms(variables["params"], variables["batch_stats"], x, LABELS, jax.random.key(0))
    return {kind: dict(zip(layers, np.asarray(values), strict=True)) for kind, values in found.items()}


@pytest.mark.parametrize(
    ("fields", "depth"),
    [
        ({}, 6),
        ({"shortcut": "none"}, 6),
        ({"activation": "full_preactivation", "remat": True}, 6),
        # In training, a bottleneck's last convolution has no output then.
        ({"block": "bottleneck", "shortcut": "B", "fold_norm": True}, 8),
    ],
)
def test_kernels_are_those_of_training(fields, depth):
    net, variables, x, layers = make(**fields)
    assert layers[0] == "stem/conv" and layers[-1] == "head" and len(layers) == depth
    found = measured(net, variables, x, layers)["kernels"]
    grads, _, _ = make_gradients(net, Classification(net.num_classes))(
        variables["params"], variables["batch_stats"], jnp.asarray(x), jnp.asarray(LABELS), jax.random.key(0)
    )
    for path in layers:
        kernel = grads
        for name in path.split("/"):
            kernel = kernel[name]
        assert found[path] == pytest.approx(float(np.linalg.norm(kernel["kernel"])), rel=1e-4)


def loss_from_conv2(variables, activated, residual):
    """Cross-entropy of the tiny one-unit net in float64, from the output of its last convolution on."""
    w = ref.Weights(variables, train=True)
    x = ref.relu(activated + w.bn("stage1/block1/bn2", residual))
    logits = w.dense("head", x.mean(axis=(1, 2)))
    logits = logits - logits.max(axis=1, keepdims=True)
    return np.mean(np.log(np.exp(logits).sum(axis=1)) - logits[np.arange(5), LABELS])


def test_outputs_and_kernels_by_finite_differences():
    """Of the last convolution, in float64: its output entry by entry, and its kernel."""
    net, variables, x, layers = make(stage_sizes=(1,), widths=(2,))
    x = x[:, :4, :4]
    w = ref.Weights(variables, train=True)
    stem = ref.relu(w.bn("stem/bn", w.conv("stem/conv", x)))
    inner = ref.relu(w.bn("stage1/block1/bn1", w.conv("stage1/block1/conv1", stem)))
    kernel = w.param("stage1/block1/conv2/kernel")
    output = ref.conv2d(inner, kernel)

    def numerical(array, loss):
        grad = np.zeros(array.shape)
        for index in np.ndindex(*array.shape):
            step = np.zeros(array.shape)
            step[index] = 1e-5
            grad[index] = (loss(array + step) - loss(array - step)) / 2e-5
        return np.linalg.norm(grad)

    found = measured(net, variables, x, layers)
    by_output = numerical(output, lambda y: loss_from_conv2(variables, stem, y))
    by_kernel = numerical(kernel, lambda k: loss_from_conv2(variables, stem, ref.conv2d(inner, k)))
    assert found["outputs"]["stage1/block1/conv2"] == pytest.approx(by_output, rel=1e-3)
    assert found["kernels"]["stage1/block1/conv2"] == pytest.approx(by_kernel, rel=1e-3)


def test_the_head_in_closed_form():
    """Cross-entropy's gradient with respect to the logits is (softmax - one-hot) / batch."""
    net, variables, x, layers = make()
    logits, _ = net.apply(variables, x, train=True, mutable=["batch_stats"])
    expected = (jax.nn.softmax(logits) - jax.nn.one_hot(LABELS, 5)) / 5
    assert measured(net, variables, x, layers)["outputs"]["head"] == pytest.approx(
        float(jnp.linalg.norm(expected)), rel=1e-4
    )


def test_goes_the_way_of_the_run(tiny_config, tmp_path):
    """The last state is that of the run: its gradient there is the same one, from the checkpoint."""
    from resnet_jax.evaluation.open_run import open_run

    fit(tiny_config(), tmp_path / "run")
    run = open_run(tmp_path / "run")
    trainer = make_trainer(tiny_config())
    ticks = []
    found = dict(train_and_measure(trainer, [0, 2, 6], lambda done, total: ticks.append((done, total))))
    assert list(found) == [0, 2, 6] and ticks[-1] == (6, 6)
    norms = jax.jit(make_gradient_norms(trainer.model, trainer.task, weighted_layers(trainer.summary)))
    each = []
    for step in range(6, 10):
        key = jax.random.fold_in(jax.random.wrap_key_data(run.state.key), step)
        augment_key, dropout_key = jax.random.split(key)
        pipeline = run.trainer.pipeline
        batch = pipeline.train_batch(pipeline.train, pipeline.train_inputs(step, 1)[0], augment_key)
        each.append(norms(run.state.params, run.state.batch_stats, *batch, dropout_key)["kernels"])
    np.testing.assert_allclose(found[6]["kernels"], np.mean(each, axis=0), rtol=1e-4)


def test_of_the_loss_that_is_trained_on(tiny_config, monkeypatch):
    """The first step of SGD moves each kernel by its rate times the norm; images are mixed and labels softened."""
    monkeypatch.setattr(gradients, "BATCHES", 1)
    fields = {"regularization.mixup": 0.8, "regularization.label_smoothing": 0.3, "optimizer.weight_decay": 0.0}
    trainer = make_trainer(tiny_config(loss="binary_cross_entropy", **fields))
    found = train_and_measure(trainer, [0])[0][1]["kernels"]
    before = trainer.init()
    start = jax.device_get(before.params)
    pipeline = trainer.pipeline
    after, metrics = trainer.train_step(before, pipeline.train, pipeline.train_inputs(0, 1))
    moved = jax.tree.map(lambda a, b: np.linalg.norm(np.float64(a) - b), jax.device_get(after.params), start)
    for path, norm in zip(weighted_layers(trainer.summary), found, strict=True):
        node = moved
        for name in path.split("/"):
            node = node[name]
        assert norm == pytest.approx(node["kernel"] / float(metrics["learning_rate"][0]), rel=1e-3)


def test_several_steps_at_once(tiny_config, monkeypatch):
    """As on an accelerator: the same way, with a rest of single steps."""
    trainer = make_trainer(tiny_config())
    single = train_and_measure(trainer, [5])
    monkeypatch.setattr(gradients, "platform", lambda mesh: "gpu")
    monkeypatch.setattr(gradients, "STEPS_PER_DISPATCH", 2)
    ticks = []
    several = train_and_measure(trainer, [5], lambda done, total: ticks.append(done))
    assert ticks == [2, 4, 5]
    np.testing.assert_allclose(several[0][1]["kernels"], single[0][1]["kernels"], rtol=1e-3)


@pytest.mark.long
def test_of_a_run(residual):
    before = sorted(path.name for path in (residual / "checkpoints").iterdir())
    path = run_gradients(residual, [3, 0, 3])
    found = json.loads(path.read_text())
    assert found["steps"] == [0, 3] and len(found["layers"]) == 2 + 2 * 6
    for kind in ("kernels", "outputs"):
        values = np.array(found[kind])
        assert values.shape == (2, 14) and (values > 0).all()
    assert sorted(path.name for path in (residual / "checkpoints").iterdir()) == before
    with pytest.raises(UserError, match="between 0 and the run's 6"):
        run_gradients(residual, [7])


def test_moments():
    assert measurement_steps(64_000) == [0, 640, 6400, 32_000, 64_000]
    assert measurement_steps(1) == [0, 1]
