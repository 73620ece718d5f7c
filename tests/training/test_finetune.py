"""Frozen parts, rates by depth and the linear probe: against NumPy, bit by bit where nothing may change."""

import jax
import numpy as np
import pytest
from flax import traverse_util

from resnet_jax.config import base_config
from resnet_jax.errors import UserError
from resnet_jax.models.features import forward_with_features
from resnet_jax.models.registry import create_model
from resnet_jax.training.config_checks import validate_config
from resnet_jax.training.finetune import TunedModel, check_parts, is_frozen, make_tuned_optimizer
from resnet_jax.training.trainer import make_trainer
from tests.training.test_init_from import a_folder_of_weights
from tests.training.test_optimizer import numpy_sgd

NET = {"stage_sizes": (1, 1), "widths": (4, 8)}


def flat(tree):
    return traverse_util.flatten_dict(jax.device_get(tree), sep="/")


def tuned(**fields):
    config = base_config()
    config.finetune.update(fields)
    return config


def steps(trainer, count):
    state = trainer.init()
    states = [jax.device_get(state)]
    for step in range(count):
        state, _ = trainer.train_step(state, trainer.pipeline.train, trainer.pipeline.train_inputs(step, 1))
        states.append(jax.device_get(state))
    return states


def test_each_layer_has_its_rate():
    """layer_decay 0.5 over stem, two stages and head, by hand; the decay goes with the rate, the momentum does not."""
    factors = {"stem/conv": 0.125, "stage1/block1/conv1": 0.25, "stage2/block1/bn1": 0.5, "final/bn": 0.5, "head": 3.0}
    rng = np.random.default_rng(0)
    names = {f"{layer}/kernel": factor for layer, factor in factors.items()}
    params = {name: rng.normal(size=4).astype(np.float32) for name in names}
    grads = [{name: rng.normal(size=4).astype(np.float32) for name in names} for _ in range(3)]

    config = tuned(layer_decay=0.5, head_rate=3.0)
    config.optimizer.weight_decay = 0.3
    optimizer = make_tuned_optimizer(config)
    ours = traverse_util.unflatten_dict(params, sep="/")
    state = optimizer.init(ours)
    for g in grads:
        updates, state = optimizer.update(traverse_util.unflatten_dict(g, sep="/"), state, ours)
        ours = jax.tree.map(lambda p, u: p - 0.1 * u, ours, updates)
    for name, factor in names.items():
        expected = numpy_sgd(params[name], [g[name] for g in grads], 0.1 * factor, 0.9, 0.0)  # checked again below
        decayed = params[name].astype(np.float64)
        velocity = np.zeros(4)
        for g in grads:
            velocity = 0.9 * velocity + g[name] + 0.3 * decayed
            decayed = decayed - 0.1 * factor * velocity
        np.testing.assert_allclose(flat(ours)[name], decayed, rtol=1e-5, atol=1e-6, err_msg=name)
        assert not np.allclose(decayed, expected, rtol=1e-3), "the decay must be seen"


def test_frozen_parts_keep_every_bit_and_the_rest_moves(tiny_config, tmp_path):
    """With weight decay, momentum, an average, and micro-batches whose mean would round: (x + x + x) / 3."""
    weights = a_folder_of_weights(tmp_path / "weights", 1)
    config = tiny_config(
        init_from=str(weights), finetune__frozen="stem,stage1,stage2/*/conv2", regularization__ema_decay=0.7,
        optimizer__weight_decay=0.1, accumulate=3, batch_size=15,
    )  # fmt: skip
    first, *_, last = steps(make_trainer(config, jax.devices()[:1]), 3)

    def frozen(name):
        return name.startswith(("stem/", "stage1/", "stage2/block1/conv2/"))

    for before, after, part in (
        (first.params, last.params, "params"), (first.batch_stats, last.batch_stats, "statistics"),
        (first.average["params"], last.average["params"], "average"),
        (first.average["batch_stats"], last.average["batch_stats"], "average"),
    ):  # fmt: skip
        before, after = flat(before), flat(after)
        for name, value in before.items():
            assert np.array_equal(value, after[name]) == frozen(name), (part, name)


def test_frozen_parts_are_frozen_in_a_loop_of_units_too():
    """With `scan`, units share one module that has no name of its own; what is frozen is the same as without."""
    sizes = {"stage_sizes": (3, 3), "widths": (4, 8)}
    nets = [create_model("cifar_resnet20", num_classes=3, **sizes, scan=scan) for scan in (False, True)]
    rng = np.random.default_rng(0)
    images = rng.normal(size=(6, 8, 8, 3)).astype(np.float32)
    shapes = jax.eval_shape(lambda: nets[0].init(jax.random.key(0), images))
    variables = jax.tree.map(lambda s: rng.uniform(0.5, 1.5, s.shape).astype(np.float32), shapes)
    for frozen in ("stage1", "*/bn*"):
        tune = tuned(frozen=frozen).finetune
        found = [TunedModel(net, tune).apply(variables, images, train=True, mutable=["batch_stats"]) for net in nets]
        np.testing.assert_allclose(found[0][0], found[1][0], rtol=1e-5)
        for one in found:
            jax.tree.map(
                np.testing.assert_array_equal,
                one[1]["batch_stats"]["stage1"]["block2"], variables["batch_stats"]["stage1"]["block2"],
            )  # fmt: skip


@pytest.mark.parametrize("fields", [{}, {"remat": True}])
def test_frozen_statistics_are_test_mode_in_training(fields):
    """Outputs and gradients are those of the net in test mode, and no statistic changes."""
    model = create_model("cifar_resnet20", num_classes=3, **NET, **fields)
    rng = np.random.default_rng(0)
    images = rng.normal(size=(6, 8, 8, 3)).astype(np.float32)
    shapes = jax.eval_shape(lambda: model.init(jax.random.key(0), images))
    variables = jax.tree.map(lambda s: rng.uniform(0.5, 1.5, s.shape).astype(np.float32), shapes)
    net = TunedModel(model, tuned(freeze_statistics=True).finetune)

    def ours(params):
        logits, changed = net.apply({**variables, "params": params}, images, train=True, mutable=["batch_stats"])
        return logits[:, 0].sum(), (logits, changed)

    def theirs(params):
        logits = model.apply({**variables, "params": params}, images, train=False)
        return logits[:, 0].sum(), (logits, None)

    (_, (logits, changed)), grads = jax.value_and_grad(ours, has_aux=True)(variables["params"])
    (_, (expected, _)), expected_grads = jax.value_and_grad(theirs, has_aux=True)(variables["params"])
    np.testing.assert_allclose(logits, expected, rtol=1e-6)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5), grads, expected_grads)
    jax.tree.map(np.testing.assert_array_equal, changed["batch_stats"], variables["batch_stats"])


def test_a_linear_probe_is_logistic_regression_on_the_features(tiny_config, tmp_path):
    """The head after three steps against softmax regression in NumPy, float64, on features in test mode."""
    weights = a_folder_of_weights(tmp_path / "weights", 1)
    config = tiny_config(
        init_from=str(weights), finetune__linear_probe=True, data__padding=0, optimizer__weight_decay=0.05,
        optimizer__decay_scope="all", schedule__warmup="none",
    )  # fmt: skip
    trainer = make_trainer(config, jax.devices()[:1])
    states = steps(trainer, 3)
    kernel, bias = (np.float64(states[0].params["head"][name]) for name in ("kernel", "bias"))
    velocity = [np.zeros_like(kernel), np.zeros_like(bias)]
    variables = {"params": states[0].params, "batch_stats": states[0].batch_stats}
    for step in range(3):
        indices = trainer.pipeline.train_inputs(step, 1)[0]
        images, labels = trainer.pipeline.eval_batch(trainer.pipeline.train, indices)
        _, found = forward_with_features(trainer.model, variables, images)
        features = np.float64(found["final"]).mean(axis=(1, 2))
        logits = features @ kernel + bias
        shares = np.exp(logits - logits.max(axis=1, keepdims=True))
        shares /= shares.sum(axis=1, keepdims=True)
        error = (shares - np.eye(10)[np.asarray(labels)]) / len(labels)
        for i, (gradient, value) in enumerate(((features.T @ error, kernel), (error.sum(axis=0), bias))):
            velocity[i] = 0.9 * velocity[i] + gradient + 0.05 * value
        kernel, bias = kernel - 0.05 * velocity[0], bias - 0.05 * velocity[1]
    assert np.abs(kernel - states[0].params["head"]["kernel"]).max() > 0.01
    np.testing.assert_allclose(states[-1].params["head"]["kernel"], kernel, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(states[-1].params["head"]["bias"], bias, rtol=1e-4, atol=1e-6)
    for name in ("params", "batch_stats"):
        before, after = (flat(getattr(state, name)) for state in (states[0], states[-1]))
        assert all(np.array_equal(before[n], after[n]) for n in before if not n.startswith("head/"))


def test_names_that_match():
    config = tuned(frozen=" stem, stage[12]/block1,*/bn2").finetune
    frozen = ["stem/conv/kernel", "stage1/block1/conv1/kernel", "stage3/block9/bn2/scale"]
    free = ["stage1/block10/conv1/kernel", "stage3/block1/bn1/bias", "head/kernel"]
    assert [is_frozen(config, name) for name in frozen + free] == [True] * 3 + [False] * 3


def test_parts_that_are_not_there_and_nothing_left_are_said():
    params = {"stem": {"conv": {"kernel": 0}}, "stage1": {"block1": {"conv1": {"kernel": 0}}}, "head": {"kernel": 0}}
    with pytest.raises(
        UserError, match="'stage4', which is no part of cifar_resnet20: its parts are stem, stage1, head"
    ):
        check_parts(tuned(frozen="stem,stage4"), params)
    with pytest.raises(UserError, match="leaves nothing to train"):
        check_parts(tuned(frozen="stem,stage1,head"), params)


def test_a_net_of_ones_own_has_parts_of_other_names():
    """Frozen parts go by any name; rates by depth need those that tell the depth."""
    params = {"convolution": {"kernel": np.zeros(3)}, "classes": {"kernel": np.zeros(3)}}
    check_parts(tuned(frozen="convolution"), params)
    for fields, message in (
        ({"frozen": "stem"}, "which is no part of .*: its parts are classes, convolution"),
        ({"layer_decay": 0.5}, r"counts the parts stem, stage1, \.\.\., head, and this net has classes, convolution"),
        ({"head_rate": 10.0}, "head_rate is for the part head, and this net has classes, convolution"),
    ):
        with pytest.raises(UserError, match=message):
            check_parts(tuned(**fields), params)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"finetune.layer_decay": 0.0}, "layer_decay=0.0 must be above 0 and at most 1"),
        ({"finetune.layer_decay": 1.5}, "at most 1"),
        ({"finetune.head_rate": -1.0}, "head_rate"),
        ({"finetune.head": "old"}, "auto, new, keep"),
        ({"finetune.linear_probe": True}, "need config.init_from"),
        ({"finetune.frozen": "stem"}, "need config.init_from"),
        ({"model.name": "init_from"}, "set config.init_from"),
        ({"data.normalization": "weights"}, "needs config.init_from"),
        ({"data.image_size": 0}, "needs config.init_from"),
        ({"data.folder": "x"}, "is for config.data.name=image_folder, image_masks, voc, coco, not cifar10"),
        ({"data.held_out": 5, "data.held_out_share": 0.1}, "set one of them"),
        ({"data.held_out_share": 1.0}, "held_out_share=1.0"),
        ({"early_stopping.patience": -1}, "patience=-1"),
        ({"data.eval_split": "train"}, "auto, test, validation, held_out"),
    ],
)
def test_fields_that_make_no_sense_are_refused(fields, message):
    config = base_config()
    config.update_from_flattened_dict(fields)
    with pytest.raises(UserError, match=message):
        validate_config(config)
