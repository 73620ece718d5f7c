"""The jitted step: sharding, dispatch, precision and randomness change nothing that they should not."""

import functools
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from resnet_jax.tasks.classification import cross_entropy, is_error
from resnet_jax.tasks.task import Task
from resnet_jax.training.trainer import make_trainer
from tests.conftest import make_tiny_config


def train(config, devices, steps=4, at_once=1):
    trainer = make_trainer(config, jax.devices()[:devices])
    state, losses = trainer.init(), []
    for step in range(0, steps, at_once):
        inputs = trainer.pipeline.train_inputs(step, at_once)
        state, metrics = trainer.train_step(state, trainer.pipeline.train, inputs)
        losses += np.asarray(metrics["loss"]).tolist()
    return trainer, state, losses


@functools.cache
def trained_once(**fields):
    """Of `train` on one device, what several tests compare with; fields as those of `tiny_config`."""
    return train(make_tiny_config(**fields), 1)


def largest_difference(a, b):
    differences = jax.tree.map(lambda x, y: float(np.max(np.abs(np.asarray(x) - np.asarray(y)))), a, b)
    return max(jax.tree.leaves(differences))


@pytest.mark.parametrize("group", [0, 4, 8])
def test_eight_devices_equal_one(tiny_config, group):
    """Same losses and parameters whether a batch of 16 is on 1 device or 2 images on each of 8, groups included."""
    config = tiny_config(model__bn_group_size=group, data__flip=True)
    _, one, losses_one = train(config, 1)
    trainer, eight, losses_eight = train(config, 8)
    assert trainer.mesh.size == 8
    np.testing.assert_allclose(losses_eight, losses_one, rtol=2e-5)
    assert largest_difference(eight.params, one.params) < 2e-5
    assert largest_difference(eight.batch_stats, one.batch_stats) < 2e-5


def test_training_images_are_augmented_by_step(tiny_config):
    """The same images at two steps are cropped differently, and other than in evaluation."""
    trainer = make_trainer(tiny_config(), jax.devices()[:1])
    pipeline, indices = trainer.pipeline, jnp.arange(64)
    still, labels = pipeline.eval_batch(pipeline.test, indices)
    moved = [pipeline.train_batch(pipeline.test, indices, jax.random.key(i)) for i in (0, 1)]
    for images, same_labels in moved:
        np.testing.assert_array_equal(labels, same_labels)
        assert np.mean(np.any(np.asarray(images != still), axis=(1, 2, 3))) > 0.5
    assert np.any(np.asarray(moved[0][0] != moved[1][0]))


def test_random_numbers_change_from_step_to_step(tiny_config):
    """A step repeated from the same parameters, but counted as another, sees other crops of the same images."""
    trainer = make_trainer(tiny_config(), jax.devices()[:1])
    inputs = trainer.pipeline.train_inputs(0, 1)
    losses = []
    for number in (0, 0, 5):
        state = trainer.init().replace(step=jnp.array(number, jnp.int32))
        _, metrics = trainer.train_step(state, trainer.pipeline.train, inputs)
        losses.append(float(metrics["loss"][0]))
    assert losses[0] == losses[1] != losses[2]


def test_an_output_that_is_not_finite_is_an_error():
    """The argmax of NaNs is class 0: a diverged net would be right on every tenth image."""
    logits = jnp.array([[jnp.nan, jnp.nan], [3.0, 1.0], [jnp.inf, 0.0]])
    np.testing.assert_array_equal(is_error(logits, jnp.zeros(3, jnp.int32)), [1, 0, 1])


def test_groups_matter():
    """The comparison above would hold for groups that are ignored, too."""
    _, _, whole = trained_once()
    _, _, grouped = trained_once(model__bn_group_size=4)
    assert abs(whole[0] - grouped[0]) > 1e-3


def test_several_steps_in_one_dispatch_equal_single_ones(tiny_config):
    _, single, losses = trained_once()
    _, scanned, losses_scanned = train(tiny_config(), 1, at_once=2)
    np.testing.assert_allclose(losses_scanned, losses, rtol=2e-5)
    assert largest_difference(single.params, scanned.params) < 2e-5
    assert int(scanned.step) == 4


def test_same_seed_is_bitwise_the_same_and_another_is_not(tiny_config):
    _, first, losses = trained_once()
    _, second, again = train(tiny_config(), 1)
    _, _, other = train(tiny_config(seed=1), 1)
    assert losses == again
    assert largest_difference(first.params, second.params) == 0
    assert losses != other


def test_the_seed_draws_weights_order_and_crops(tiny_config):
    """Each of them: runs of several seeds would else differ by less than the tables say."""
    trainers = [make_trainer(tiny_config(seed=seed), jax.devices()[:1]) for seed in (0, 1)]
    one, other = (jax.device_get(trainer.init()) for trainer in trainers)
    inputs, others = (trainer.pipeline.train_inputs(0, 1) for trainer in trainers)
    assert largest_difference(one.params, other.params) > 0.01 and np.any(inputs != others)
    losses = []
    for key in (one.key, one.key, other.key):  # with the same weights and images
        state = trainers[0].init().replace(key=jnp.array(key))
        _, metrics = trainers[0].train_step(state, trainers[0].pipeline.train, inputs)
        losses.append(float(metrics["loss"][0]))
    assert losses[0] == losses[1] != losses[2]


def test_bfloat16_computes_near_float32_with_float32_state(tiny_config):
    _, state, losses = train(tiny_config(dtype="bfloat16"), 1, steps=1)
    _, _, expected = trained_once()
    assert {x.dtype for x in jax.tree.leaves((state.params, state.batch_stats))} == {jnp.dtype("float32")}
    assert losses[0] == pytest.approx(expected[0], rel=0.03)
    assert losses[0] != expected[0]


def test_first_step_is_the_gradient_of_the_loss(tiny_config):
    """Parameters move by -rate * (dL/dw + decay * w); dL/dw of some weights by central differences."""
    config = tiny_config(
        data__padding=0, schedule__warmup="none", optimizer__weight_decay=0.01, optimizer__decay_scope="all"
    )
    trainer = make_trainer(config, jax.devices()[:1])
    state = trainer.init()
    before = jax.tree.map(np.asarray, state.params)
    stats = jax.tree.map(np.asarray, state.batch_stats)
    inputs = trainer.pipeline.train_inputs(0, 1)
    images, labels = trainer.pipeline.eval_batch(trainer.pipeline.train, jnp.asarray(inputs[0]))

    @jax.jit
    def loss(params):
        logits, _ = trainer.model.apply(
            {"params": params, "batch_stats": stats}, images, train=True, mutable=["batch_stats"]
        )
        log_p = jax.nn.log_softmax(logits)
        return -jnp.mean(jnp.take_along_axis(log_p, labels[:, None], axis=1))

    after, metrics = trainer.train_step(state, trainer.pipeline.train, inputs)
    np.testing.assert_allclose(metrics["loss"][0], loss(before), rtol=1e-5)
    for path in (("head", "bias"), ("head", "kernel"), ("stage2", "block1", "bn1", "scale")):
        leaf = before
        moved = after.params
        for key in path:
            leaf, moved = leaf[key], moved[key]
        index = (0,) * leaf.ndim

        def nudged(by, path=path, index=index):
            params = jax.tree.map(np.array, before)
            node = params
            for key in path[:-1]:
                node = node[key]
            node[path[-1]][index] += by
            return float(loss(params))

        slope = (nudged(1e-2) - nudged(-1e-2)) / 2e-2
        expected = leaf[index] - config.optimizer.learning_rate * (slope + 0.01 * leaf[index])
        assert float(moved[index]) == pytest.approx(expected, abs=2e-5), path


@pytest.mark.parametrize("devices", [1, 4])
@pytest.mark.parametrize("micro_batches", [2, 4])
def test_accumulation_equals_the_whole_batch_with_groups_that_divide(tiny_config, micro_batches, devices):
    """Losses, parameters and running statistics, with momentum and several steps."""
    _, whole, losses = trained_once(model__bn_group_size=4)
    _, accumulated, losses_accumulated = train(tiny_config(model__bn_group_size=4, accumulate=micro_batches), devices)
    np.testing.assert_allclose(losses_accumulated, losses, rtol=2e-5)
    assert largest_difference(whole.params, accumulated.params) < 2e-5
    assert largest_difference(whole.batch_stats, accumulated.batch_stats) < 2e-5


def test_accumulation_without_groups_has_the_statistics_of_micro_batches(tiny_config):
    """Where the two differ it is as documented: four micro-batches of 4 are groups of 4."""
    _, grouped, losses = trained_once(model__bn_group_size=4)
    _, accumulated, losses_accumulated = train(tiny_config(accumulate=4), 1)
    np.testing.assert_allclose(losses_accumulated, losses, rtol=2e-5)
    assert largest_difference(grouped.batch_stats, accumulated.batch_stats) < 2e-5


def test_scanned_micro_batches_equal_unrolled_ones(tiny_config, monkeypatch):
    """The way taken on accelerators, on CPU."""
    config = tiny_config(accumulate=4)
    _, unrolled, _ = train(config, 1, steps=2)
    monkeypatch.setattr("resnet_jax.training.step.platform", lambda mesh: "gpu")
    _, scanned, _ = train(config, 1, steps=2)
    assert largest_difference(unrolled.params, scanned.params) < 2e-5


def test_rematerialisation_changes_memory_only(tiny_config):
    trainer, kept, losses = trained_once()
    other, again, losses_again = train(tiny_config(model__remat=True), 1)
    np.testing.assert_allclose(losses_again, losses, rtol=2e-5)
    assert largest_difference(kept.params, again.params) < 2e-5

    def computes_again(trainer, state):
        inputs = trainer.pipeline.train, np.zeros((1, 16), np.int32)
        return re.search("remat|checkpoint", str(jax.make_jaxpr(lambda s: trainer.train_step(s, *inputs))(state)))

    assert computes_again(other, again) and not computes_again(trainer, kept)


def test_norms_are_those_of_gradient_and_update(tiny_config):
    """That of the gradient without the decay, which the first step's velocity holds, too."""
    decay = 0.05
    config = tiny_config(
        optimizer__weight_decay=decay, optimizer__decay_scope="all", schedule__warmup="none", data__padding=0
    )
    trainer = make_trainer(config, jax.devices()[:1])
    state = trainer.init()
    before = jax.tree.map(np.asarray, state.params)
    after, metrics = trainer.train_step(state, trainer.pipeline.train, trainer.pipeline.train_inputs(0, 1))
    moved = jax.tree.map(lambda a, b: np.float64(a) - b, after.params, before)
    gradient = jax.tree.map(lambda m, b: -m / config.optimizer.learning_rate - decay * b, moved, before)

    def norm(tree):
        return np.sqrt(sum(np.sum(x**2) for x in jax.tree.leaves(tree)))

    assert metrics["update_norm"][0] == pytest.approx(norm(moved), rel=1e-4)
    assert metrics["gradient_norm"][0] == pytest.approx(norm(gradient), rel=1e-3)
    assert norm(moved) / config.optimizer.learning_rate != pytest.approx(norm(gradient), rel=0.01), "decay is seen"


class Loss(Task):
    """No more than a task needs."""

    def example_losses(self, outputs, inputs, targets):
        return cross_entropy(outputs, targets)


@pytest.mark.parametrize(
    ("task", "fields"),
    [
        (None, {"loss": "binary_cross_entropy", "regularization__label_smoothing": 0.1}),
        (Loss(), {}),
    ],
)
def test_every_test_image_counts_once(tiny_config, task, fields):
    """360 images on 7 devices do not divide evenly; the padded part must not be counted.

    The loss is the softmax cross-entropy, whatever a classifier was trained on.
    """
    config = tiny_config(batch_size=14, **fields)
    trainer = make_trainer(config, jax.devices()[:7], task=task)
    state = trainer.init()
    scores = trainer.evaluate(state)
    images, labels = trainer.pipeline.eval_batch(trainer.pipeline.test, jnp.arange(360))
    logits = np.float64(trainer.model.apply({"params": state.params, "batch_stats": state.batch_stats}, images))
    shares = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    assert scores["test_loss"] == pytest.approx(-np.mean(np.log(shares[np.arange(360), labels])), rel=1e-5)
    if task is None:
        wrong = int(np.sum(np.argmax(logits, -1) != labels))
        assert scores["test_error"] == pytest.approx(100 * wrong / 360, abs=1e-9)
