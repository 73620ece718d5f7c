"""Averaged weights, and training options in the step: by definition when on, without a trace when off."""

import jax
import numpy as np
import pytest

from resnet_jax.config import base_config
from resnet_jax.errors import UserError
from resnet_jax.evaluation.single_view import evaluate
from resnet_jax.tasks.classification import cross_entropy, is_error
from resnet_jax.training.config_checks import validate_config
from resnet_jax.training.loop import fit
from resnet_jax.training.step import TrainState
from resnet_jax.training.trainer import make_trainer

DECAY = 0.6


def steps(config, count=3, devices=1):
    trainer = make_trainer(config, jax.devices()[:devices])
    state, states = trainer.init(), []
    states.append(jax.device_get(state))
    for step in range(count):
        state, _ = trainer.train_step(state, trainer.pipeline.train, trainer.pipeline.train_inputs(step, 1))
        states.append(jax.device_get(state))
    return trainer, state, states


def test_average_is_that_of_its_definition_and_is_what_is_tested(tiny_config):
    trainer, state, states = steps(tiny_config(regularization__ema_decay=DECAY))
    _, _, plain = steps(tiny_config())
    expected = jax.tree.map(np.float64, {"params": plain[0].params, "batch_stats": plain[0].batch_stats})
    for one in plain[1:]:
        new = {"params": one.params, "batch_stats": one.batch_stats}
        expected = jax.tree.map(lambda a, b: DECAY * a + (1 - DECAY) * b, expected, new)
    for a, b in zip(jax.tree.leaves(states[-1].average), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6)
    # Averaging does not touch training.
    for a, b in zip(jax.tree.leaves(states[-1].params), jax.tree.leaves(plain[-1].params), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-6)

    def error(variables):
        images, labels = trainer.pipeline.eval_batch(trainer.pipeline.test, np.arange(360))
        return 100 * float(np.mean(is_error(trainer.model.apply(variables, images), labels)))

    found = trainer.evaluate(state)["test_error"]
    assert found == pytest.approx(error(state.average))
    assert found != pytest.approx(error({"params": state.params, "batch_stats": state.batch_stats}))


def test_average_survives_a_checkpoint(tiny_config, tmp_path):
    result = fit(tiny_config(regularization__ema_decay=DECAY), tmp_path / "run")
    assert evaluate(tmp_path / "run").test_error == result.metrics["test_error"]


def test_states_of_other_runs_are_as_they_were(tiny_config):
    """Their checkpoints hold these fields in this order, and no other."""
    state = make_trainer(tiny_config(), jax.devices()[:1]).init()
    assert type(state) is TrainState
    fields = ["step", "params", "batch_stats", "opt_state", "key", "warming", "warmup_error"]
    assert list(vars(state)) == fields


def test_soft_labels():
    """Cross-entropy is linear in the target, and the error is that of the largest."""
    rng = np.random.default_rng(0)
    logits, weights = rng.normal(size=(4, 5)), rng.dirichlet(np.ones(5), 4)
    by_class = np.stack([cross_entropy(logits, np.full(4, c)) for c in range(5)], axis=1)
    np.testing.assert_allclose(cross_entropy(logits, weights), (weights * by_class).sum(axis=1), rtol=1e-5)
    np.testing.assert_array_equal(is_error(logits, weights), is_error(logits, weights.argmax(axis=1)))


@pytest.mark.long
@pytest.mark.parametrize(
    "fields",
    [
        {
            "regularization__mixup": 0.2,
            "regularization__cutmix": 1.0,
            "regularization__label_smoothing": 0.1,
            "data__random_erasing": 0.5,
            "model__stochastic_depth": 0.3,
        },
        {
            "data__name": "synthetic",
            "data__rand_augment__operations": 2,
            "data__rand_augment__deviation": 0.5,
            "data__repeats": 3,
            "loss": "binary_cross_entropy",
            "regularization__mixup": 0.2,
            "regularization__target_threshold": 0.2,
            "model__stochastic_depth": 0.3,
            "model__stochastic_depth_per": "example",
        },
        {"data__name": "synthetic", "data__colour_pca": 0.1, "data__normalization": "imagenet"},
        {"data__name": "synthetic", "data__colour_jitter": 0.4},
    ],
)
def test_options_train_alike_on_one_and_on_several_devices(tiny_config, fields):
    """And other than without them."""
    config = {**fields, "model__bn_group_size": 4}
    _, _, one = steps(tiny_config(**config), 2)
    _, _, four = steps(tiny_config(**config), 2, 4)
    off = {"data__name": fields.get("data__name", "digits"), "model__bn_group_size": 4}
    off["data__normalization"] = fields.get("data__normalization", "per_pixel_mean")
    _, _, without = steps(tiny_config(**off), 2)

    def gap(a, b):
        pairs = zip(jax.tree.leaves(a.params), jax.tree.leaves(b.params), strict=True)
        return max(float(np.abs(x - y).max()) for x, y in pairs)

    assert gap(one[-1], four[-1]) < 2e-5
    assert gap(one[-1], without[-1]) > 1e-4


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("regularization.label_smoothing", 1.0, "must be below 1"),
        ("regularization.ema_decay", 1.0, "must be below 1"),
        ("regularization.mixup", -0.1, "must be 0 or more"),
        ("data.random_erasing", 1.5, "at most 1"),
        ("data.colour_pca", -1.0, "must be 0 or more"),
    ],
)
def test_values_that_make_no_sense_are_refused(field, value, message):
    config = base_config()
    config.update_from_flattened_dict({field: value})
    with pytest.raises(UserError, match=message):
        validate_config(config)


@pytest.mark.parametrize("field", ["colour_pca", "colour_jitter"])
def test_colours_of_grey_images_are_refused(tiny_config, field):
    with pytest.raises(UserError, match=rf"config.data.{field} is for RGB images, not for 1 channel\(s\)"):
        make_trainer(tiny_config(**{f"data__{field}": 0.1}))
