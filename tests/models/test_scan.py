"""Units in a loop: the same variables by the same names, and the same results, gradients and statistics."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from resnet_jax.errors import UserError
from resnet_jax.models.features import forward_with_features
from resnet_jax.models.registry import create_model
from resnet_jax.training.trainer import make_trainer


def net(**fields):
    return create_model("cifar_resnet20", **{"stage_sizes": (3, 2), "widths": (4, 6), **fields})


def trained(model, variables, images):
    """Loss, gradients and new statistics of one training batch, and the logits of testing."""

    def loss(params):
        of_batch = {"params": params, "batch_stats": variables["batch_stats"]}
        logits, new = model.apply(of_batch, images, train=True, mutable=["batch_stats"])
        return jnp.mean(jnp.sin(logits)), new

    @jax.jit
    def both(params):
        return jax.value_and_grad(loss, has_aux=True)(params), model.apply(variables, images, train=False)

    return both(variables["params"])


@pytest.mark.parametrize(
    "fields",
    [
        {"shortcut": "A"},
        {"block": "bottleneck", "shortcut": "C", "activation": "full_preactivation", "remat": True},
        {"stage_sizes": (2, 3), "output_stride": 1},
    ],
)
def test_a_loop_computes_what_the_unrolled_net_does(fields):
    images = jax.random.normal(jax.random.key(0), (4, 4, 4, 3))
    model = net(**fields)
    variables = model.init(jax.random.key(1), images, train=False)
    # Statistics that differ from unit to unit, so that an exchange would show.
    draw = np.random.default_rng(2)
    stats = jax.tree.map(lambda s: s + draw.uniform(0, 0.5, s.shape).astype(np.float32), variables["batch_stats"])
    variables = {"params": variables["params"], "batch_stats": stats}
    one, other = trained(model, variables, images), trained(net(**fields, scan=True), variables, images)
    assert jax.tree.structure(one) == jax.tree.structure(other)
    for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True):
        np.testing.assert_allclose(b, a, rtol=1e-4, atol=2e-6)


def test_a_loop_that_computes_activations_again_computes_the_same_in_less_memory():
    """Of each unit in the loop its input alone is kept."""
    images = jax.random.normal(jax.random.key(0), (4, 8, 8, 3))
    variables = net(stage_sizes=(8, 2)).init(jax.random.key(1), images, train=False)

    def compiled(remat):
        model = net(stage_sizes=(8, 2), scan=True, remat=remat)
        return jax.jit(lambda variables: trained(model, variables, images)).lower(variables).compile()

    kept, again = compiled(remat=False), compiled(remat=True)
    for a, b in zip(jax.tree.leaves(kept(variables)), jax.tree.leaves(again(variables)), strict=True):
        np.testing.assert_allclose(b, a, rtol=1e-4, atol=2e-6)
    kept, again = (program.memory_analysis().temp_size_in_bytes for program in (kept, again))
    assert again < kept / 2


def test_initial_variables_are_the_same():
    images = jnp.zeros((1, 8, 8, 3))
    one, other = (net(scan=scan).init(jax.random.key(3), images, train=False) for scan in (False, True))
    jax.tree.map(np.testing.assert_array_equal, one, other)


def test_the_program_does_not_grow_with_the_depth():
    """Convolutions in the lowered program: of the unit that is scanned, once however many there are."""

    def convolutions(depth):
        model, images = (
            create_model("cifar_resnet20", stage_sizes=(depth,), widths=(4,), scan=True),
            jnp.zeros((1, 8, 8, 3)),
        )
        variables = jax.eval_shape(lambda: model.init(jax.random.key(0), images, train=False))
        traced = jax.jit(lambda v: model.apply(v, images, train=False)).trace(variables)
        return traced.lower(lowering_platforms=("tpu",)).as_text().count("stablehlo.convolution")

    assert convolutions(3) == convolutions(6) == 5  # the stem, the first unit's two, the loop's two


def test_features_of_units_in_a_loop_have_their_names():
    images = jnp.ones((1, 8, 8, 3))
    model = net(scan=True)
    variables = model.init(jax.random.key(3), images, train=False)
    assert "stage1/block3/conv2" in forward_with_features(model, variables, images)[1]


@pytest.mark.parametrize("fields", [{"stochastic_depth": 0.5}, {"shortcut": "dropout"}])
def test_units_that_draw_are_refused(fields):
    with pytest.raises(UserError, match="scan is for units that are alike"):
        net(scan=True, **fields)


def test_a_run_of_a_deep_net_is_told_of_it(tiny_config, monkeypatch):
    monkeypatch.setattr("resnet_jax.training.trainer.LONG_TO_COMPILE", 8)
    assert any("config.model.scan=True" in note for note in make_trainer(tiny_config(), jax.devices()[:1]).notes())
    looped = make_trainer(tiny_config(model__scan=True), jax.devices()[:1])
    assert not any("scan" in note for note in looped.notes())
