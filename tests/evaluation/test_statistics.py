"""Recomputed batch-norm statistics against means and variances of captured layer inputs."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from resnet_jax.errors import UserError
from resnet_jax.evaluation.statistics import from_training_images, recompute_statistics
from resnet_jax.models.registry import create_model
from resnet_jax.training.trainer import make_trainer


def test_first_and_second_layer_by_hand():
    """The stem's statistics from its convolution's output; those behind it from inputs normalised by the batch's own.

    Averages over two batches that differ in brightness; unbiased variances.
    """
    model = create_model("cifar_resnet20", stage_sizes=(1, 1, 1), widths=(4, 4, 4))
    rng = np.random.default_rng(0)
    batches = [rng.normal(shift, 1, (6, 8, 8, 3)).astype(np.float32) for shift in (0, 2)]
    variables = model.init(jax.random.key(0), jnp.zeros((1, 8, 8, 3)))
    variables["batch_stats"] = jax.tree.map(lambda s: s + 5, variables["batch_stats"])  # must not matter
    found = recompute_statistics(model, variables, batches)["batch_stats"]

    paths = [(("stem", "conv"), ("stem", "bn")), (("stage1", "block1", "conv1"), ("stage1", "block1", "bn1")),
             (("stage3", "block1", "conv2"), ("stage3", "block1", "bn2"))]  # fmt: skip
    for conv, norm in paths:
        means, variances = [], []
        for images in batches:
            _, state = model.apply(
                variables, images, train=True, mutable=["batch_stats", "intermediates"], capture_intermediates=True
            )
            node = state["intermediates"]
            for key in conv:
                node = node[key]
            inputs = np.float64(node["__call__"][0]).reshape(-1, 4)
            means.append(inputs.mean(axis=0))
            variances.append(inputs.var(axis=0, ddof=1))
        node = found
        for key in norm:
            node = node[key]
        np.testing.assert_allclose(node["mean"], np.mean(means, axis=0), rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(node["var"], np.mean(variances, axis=0), rtol=1e-4, atol=1e-5)


def test_nothing_to_compute_from_and_nothing_to_compute():
    model = create_model("cifar_resnet20", stage_sizes=(1, 1, 1), widths=(4, 4, 4))
    variables = model.init(jax.random.key(0), jnp.zeros((1, 8, 8, 3)))
    with pytest.raises(UserError, match="at least one batch"):
        recompute_statistics(model, variables, [])
    vgg = {"params": variables["params"]}
    assert recompute_statistics(model, vgg, []) == vgg


def test_from_a_runs_training_images(tiny_config):
    """Whole batches, shared by two devices as by one; parameters stay."""
    found = []
    for devices in (1, 2):
        trainer = make_trainer(tiny_config(), jax.devices()[:devices])
        state = trainer.init()
        variables = {"params": state.params, "batch_stats": state.batch_stats}
        found.append(from_training_images(trainer.model, variables, trainer.pipeline, trainer.mesh, 20))
        assert found[-1]["params"] is state.params
    a, b = (jax.tree.leaves(jax.device_get(one["batch_stats"])) for one in found)
    for x, y in zip(a, b, strict=True):
        np.testing.assert_allclose(x, y, rtol=1e-4, atol=1e-5)
    with pytest.raises(UserError, match="--recompute_bn=0"):
        from_training_images(trainer.model, variables, trainer.pipeline, trainer.mesh, 0)
