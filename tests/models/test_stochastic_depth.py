"""Stochastic depth against its paper: whole residuals there or not, scaled in testing, rates that rise linearly."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from resnet_jax.errors import UserError
from resnet_jax.models.features import forward_with_features
from resnet_jax.models.registry import create_model

X = jnp.asarray(np.random.default_rng(0).normal(size=(4, 8, 8, 3)), jnp.float32)


def net(rate, **fields):
    return create_model("cifar_resnet20", stage_sizes=(2, 2), widths=(4, 4), stochastic_depth=rate, **fields)


def one_unit_in_training(model, variables, times):
    """Input, residual and output of the second of four units, (4, 8, 8, 4) each, with so many random keys."""

    @jax.jit
    def features(key):
        _, state = model.apply(
            variables, X, train=True, mutable=["batch_stats", "intermediates"], capture_intermediates=True,
            rngs={"dropout": key},
        )  # fmt: skip
        return state["intermediates"]

    for i in range(times):
        found = features(jax.random.key(i))
        unit = found["stage1"]["block2"]
        yield tuple(np.asarray(node["__call__"][0]) for node in (found["stage1"]["block1"], unit["bn2"], unit))


def test_testing_scales_each_residual_by_its_survival():
    """Equation 4 and 5: p_l = 1 - l / L (1 - p_L), here 0.9, 0.8, 0.7, 0.6."""
    variables = net(0.0).init(jax.random.key(0), X)
    _, found = forward_with_features(net(0.4), variables, X)
    for number, (path, before) in enumerate(
        [("stage1/block1", "stem"), ("stage1/block2", "stage1/block1"), ("stage2/block2", "stage2/block1")]
    ):
        survival = (0.9, 0.8, 0.6)[number]
        expected = np.maximum(np.asarray(found[before]) + survival * np.asarray(found[f"{path}/bn2"]), 0)
        np.testing.assert_allclose(found[path], expected, atol=1e-6)


def test_training_drops_whole_residuals_as_often_as_said():
    """Each unit's output is either that of shortcut and residual or of the shortcut alone, for the whole batch."""
    model = net(0.8)
    variables = model.init(jax.random.key(0), X)
    dropped = []
    for x, residual, out in one_unit_in_training(model, variables, times=300):
        without, whole = np.array_equal(out, np.maximum(x, 0)), np.allclose(out, np.maximum(x + residual, 0), atol=1e-6)
        assert without != whole
        dropped.append(without)
    assert np.mean(dropped) == pytest.approx(0.4, abs=4 * np.sqrt(0.24 / 300))  # 2 of 4 units: 0.8 * 2 / 4


def test_examples_draw_for_themselves_and_are_scaled_in_training():
    """As timm's "drop path": what stays is 1 / survival of the residual, and testing is the whole net."""
    model = net(0.6, stochastic_depth_per="example")
    variables = model.init(jax.random.key(0), X)
    np.testing.assert_array_equal(model.apply(variables, X), net(0.0).apply(variables, X))
    dropped = []
    for x, residual, out in one_unit_in_training(model, variables, times=150):
        without = np.array([np.array_equal(o, np.maximum(a, 0)) for o, a in zip(out, x, strict=True)])
        expected = np.maximum(x + np.where(without[:, None, None, None], 0, residual / 0.7), 0)
        np.testing.assert_allclose(out, expected, atol=1e-5)
        dropped.append(without)
    assert np.mean(dropped) == pytest.approx(0.3, abs=4 * np.sqrt(0.21 / 600))  # 2 of 4 units: 0.6 * 2 / 4
    assert any(0 < d.sum() < len(d) for d in dropped)


def test_off_is_the_net_as_it_was():
    variables = net(0.0).init(jax.random.key(0), X)
    assert jax.tree.structure(variables) == jax.tree.structure(net(0.5).init(jax.random.key(0), X))
    np.testing.assert_array_equal(
        net(0.0).apply(variables, X),
        create_model("cifar_resnet20", stage_sizes=(2, 2), widths=(4, 4)).apply(variables, X),
    )


def test_wrong_rates_and_plain_nets_are_refused():
    with pytest.raises(UserError, match=r"stochastic_depth=1.0 must be in \[0, 1\)"):
        net(1.0)
    with pytest.raises(UserError, match="needs a shortcut"):
        net(0.5, shortcut="none")
    with pytest.raises(UserError, match="unknown stochastic_depth_per 'image'"):
        net(0.5, stochastic_depth_per="image")
