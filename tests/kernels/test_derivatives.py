"""Derivatives of every mode through a net of compiled layers."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from resnet_jax import models
from resnet_jax.kernels.build import switched_off
from tests.kernels.direct import calls
from tests.models import reference


@pytest.fixture
def loss_and_point():
    """The loss in training of a net with all compiled layers; a point and a direction of its parameters."""
    model = models.create_model("resnet18", num_classes=8, bn_group_size=0, stage_sizes=(1, 1), widths=(32, 64))
    images = reference.images(8, 32, 32, 3)
    variables = reference.random_variables(model, images, train=False)
    direction = jax.tree.map(lambda x: x[::-1], variables["params"])

    def loss(params):
        logits, _ = model.apply({**variables, "params": params}, images, train=True, mutable=["batch_stats"])
        return jnp.mean(jax.nn.logsumexp(logits, -1) - logits[:, 0])

    return loss, variables["params"], direction


def dot(a, b):
    return sum(
        np.vdot(np.float64(x), np.float64(y)) for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True)
    )


def test_forward_mode_is_reverse_mode(kernels, loss_and_point):
    loss, params, direction = loss_and_point

    def forward(params, direction):
        return jax.jvp(loss, (params,), (direction,))

    assert calls(forward, params, direction) > 0
    value, slope = jax.jit(forward)(params, direction)
    expected, gradient = jax.jit(jax.value_and_grad(loss))(params)
    np.testing.assert_allclose(value, expected, rtol=1e-6)
    np.testing.assert_allclose(slope, dot(gradient, direction), rtol=1e-3)


@pytest.mark.parametrize("order", ["forward over reverse", "reverse over forward", "reverse over reverse"])
def test_hessian_vector_products_are_xlas(kernels, loss_and_point, order):
    loss, params, direction = loss_and_point

    def product(params, direction):
        if order == "forward over reverse":
            return jax.jvp(jax.grad(loss), (params,), (direction,))[1]
        if order == "reverse over forward":
            return jax.grad(lambda params: jax.jvp(loss, (params,), (direction,))[1])(params)
        return jax.grad(
            lambda params: jax.tree.reduce(jnp.add, jax.tree.map(jnp.vdot, jax.grad(loss)(params), direction))
        )(params)

    ours = jax.jit(product)(params, direction)
    with switched_off():
        expected = jax.jit(lambda *args: product(*args))(params, direction)
    scale = np.sqrt(dot(expected, expected))
    difference = jax.tree.map(jnp.subtract, ours, expected)
    assert np.sqrt(dot(difference, difference)) < 1e-2 * scale


def test_many_directions_at_once(kernels, loss_and_point):
    loss, params, direction = loss_and_point
    directions = jax.tree.map(lambda x: jnp.stack([x, -2 * x]), direction)
    slopes = jax.jit(jax.vmap(lambda d: jax.jvp(loss, (params,), (d,))[1]))(directions)
    gradient = jax.jit(jax.grad(loss))(params)
    np.testing.assert_allclose(slopes, [dot(gradient, direction), -2 * dot(gradient, direction)], rtol=1e-3)


def test_images_of_a_vmapped_gradient(kernels):
    """A gradient of vmapped layers sums over the axis where the kernel is the same for all."""
    model = models.create_model("cifar_resnet20", num_classes=10, bn_group_size=0, stage_sizes=(1, 1, 1))
    images = np.stack([reference.images(8, 16, 16, 3, seed=seed) for seed in range(3)])
    variables = reference.random_variables(model, images[0], train=False)

    def loss(params, images):
        return model.apply({**variables, "params": params}, images, train=True, mutable=["batch_stats"])[0].std()

    gradient = jax.grad(lambda p: jax.vmap(lambda x: loss(p, x))(images).sum())
    assert calls(gradient, variables["params"]) > 0
    together = jax.jit(gradient)(variables["params"])
    apart = jax.jit(jax.grad(lambda p: sum(loss(p, x) for x in images)))(variables["params"])
    assert np.sqrt(dot(d := jax.tree.map(jnp.subtract, together, apart), d)) < 1e-4 * np.sqrt(dot(apart, apart))


def test_other_platforms_get_plain_programs(loss_and_point):
    loss, params, direction = loss_and_point
    for function in (jax.grad(loss), lambda p: jax.jvp(loss, (p,), (direction,))):
        text = jax.jit(function).trace(params).lower(lowering_platforms=("tpu",)).as_text()
        assert "custom_call" not in text and "convolution" in text
