"""Batch norm folded into a 1x1 convolution: NumPy's values, finite differences, and the net that is not folded."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from resnet_jax.models import ResNet
from resnet_jax.models.folded_norm import folded_batch_norm
from resnet_jax.models.norm import batch_norm
from tests.models import reference as ref

FIELDS = {"stage_sizes": (2, 2), "widths": (4, 6), "block": "bottleneck", "stem": "cifar", "num_classes": 5}
ARGUMENTS = ("x", "kernel", "scale", "bias")


@pytest.fixture
def operands():
    """Two groups of 24 positions, four channels behind a ReLU, six features; all float64."""
    rng = np.random.default_rng(1)
    x = np.maximum(rng.normal(0.5, 1, (2, 3, 2, 4, 4)), 0)
    return x, rng.normal(size=(4, 6)), rng.uniform(0.5, 2, 6), rng.normal(size=6)


def layers(x, kernel, scale, bias):
    """Outputs, means and variances of each group, by NumPy in float64."""
    groups = [group @ kernel for group in x]
    statistics = np.array([ref.moments(group) for group in groups])
    outputs = np.stack([ref.batch_norm(group, scale, bias) for group in groups])
    return outputs, *(s[:, None, None, None] for s in statistics.swapaxes(0, 1))


def folded(*operands):
    return folded_batch_norm(*(jnp.asarray(a, jnp.float32) for a in operands), ref.EPSILON)


def test_values_and_statistics_are_those_of_the_layers(operands):
    for found, expected in zip(folded(*operands), layers(*operands), strict=True):
        assert found.shape == expected.shape
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("argument", ARGUMENTS)
def test_gradients_are_finite_differences(operands, argument):
    """Of a weighted sum of outputs, means and variances, along three directions."""
    at, rng = ARGUMENTS.index(argument), np.random.default_rng(2)
    weights = [rng.normal(size=y.shape) for y in layers(*operands)]

    def weighted(ways, operand):
        outputs = ways(*operands[:at], operand, *operands[at + 1 :])
        return sum((w * y).sum() for w, y in zip(weights, outputs, strict=True))

    gradient = jax.grad(lambda operand: weighted(folded, operand))(jnp.asarray(operands[at], jnp.float32))
    for _ in range(3):
        step = 1e-5 * rng.normal(size=operands[at].shape)
        difference = weighted(layers, operands[at] + step) - weighted(layers, operands[at] - step)
        np.testing.assert_allclose((np.float64(gradient) * 2 * step).sum(), difference, rtol=1e-4, atol=1e-8)


@pytest.mark.parametrize("argument", ARGUMENTS)
def test_tangents_in_forward_mode_are_finite_differences(operands, argument):
    at, rng = ARGUMENTS.index(argument), np.random.default_rng(4)
    step = 1e-5 * rng.normal(size=operands[at].shape)
    ends = [layers(*operands[:at], operands[at] + sign * step, *operands[at + 1 :]) for sign in (1, -1)]
    along = [np.zeros_like(a) if i != at else 2 * step for i, a in enumerate(operands)]
    single = [tuple(jnp.asarray(a, jnp.float32) for a in arrays) for arrays in (operands, along)]
    for tangent, plus, minus in zip(jax.jvp(folded, *single)[1], *ends, strict=True):
        np.testing.assert_allclose(tangent, plus - minus, rtol=1e-3, atol=1e-8)


def test_what_is_between_is_not_kept_for_the_gradient(operands):
    pullback = jax.vjp(folded, *operands)[1]
    sizes = [leaf.size for leaf in jax.tree.leaves(pullback)]
    assert max(sizes) == operands[0].size


def trained(net, variables, images):
    """Loss, gradients and new statistics of one training batch."""

    def loss(params):
        of_batch = {"params": params, "batch_stats": variables["batch_stats"]}
        logits, new = net.apply(of_batch, images, train=True, mutable=["batch_stats"])
        return jnp.mean(jnp.sin(logits)), new

    return jax.jit(jax.value_and_grad(loss, has_aux=True))(variables["params"])


@pytest.mark.parametrize(
    "fields",
    [
        {"shortcut": "B"},
        {"shortcut": "B", "stride_on": "3x3", "bn_group_size": 2, "zero_init_last": True},
        {"shortcut": "C", "scan": True, "remat": True},
    ],
)
def test_a_net_computes_what_it_does_without(fields):
    images = ref.images(4, 8, 8, 3)
    net = ResNet(**FIELDS, **fields)
    variables = ref.random_variables(net, images)
    one, other = (trained(net.clone(fold_norm=fold), variables, images) for fold in (False, True))
    assert jax.tree.structure(one) == jax.tree.structure(other)
    for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True):
        np.testing.assert_allclose(b, a, rtol=1e-3, atol=1e-5)


def test_a_net_folds_each_last_layer_and_projection():
    """Convolutions left in a training step's forward pass: the stem, and two of each unit."""
    net = ResNet(**FIELDS, fold_norm=True)
    images = ref.images(4, 8, 8, 3)
    variables = net.init(jax.random.key(0), images)
    step = jax.jit(lambda v: net.apply(v, images, train=True, mutable=["batch_stats"])).trace(variables)
    assert step.lower(lowering_platforms=("tpu",)).as_text().count("stablehlo.convolution") == 1 + 2 * 4


def test_variables_and_tests_are_those_of_the_net_without():
    images = ref.images(4, 8, 8, 3)
    one, other = (ResNet(**FIELDS, fold_norm=fold) for fold in (False, True))
    found = [net.init(jax.random.key(0), images, train=True) for net in (one, other)]
    jax.tree.map(np.testing.assert_array_equal, *found)
    np.testing.assert_array_equal(*(net.apply(found[0], images, train=False) for net in (one, other)))


@pytest.mark.parametrize("cotangents", [0.0, 1.0])
def test_bfloat16_is_as_exact_as_the_layers(cotangents):
    """Against float32: outputs and their gradients as close as the two layers', those of parameters far closer.

    The layers round the cotangent of what is between them; here sums over positions are of what is given.
    """
    rng = np.random.default_rng(3)
    images = np.maximum(rng.normal(0.5, 1, (1, 4, 8, 8, 16)), 0)
    given = [jnp.asarray(a, jnp.bfloat16) for a in (images, rng.normal(cotangents, 1, (1, 4, 8, 8, 64)))]
    parameters = [rng.normal(size=(16, 64)) / 4, rng.uniform(0.5, 1.5, 64), rng.normal(size=64)]

    def plain(x, kernel, scale, bias, epsilon, dtype):
        return batch_norm(x @ kernel.astype(dtype), scale, bias, epsilon, dtype)

    def computed(layer, dtype):
        x, cotangent = (a.astype(dtype) for a in given)
        operands = [x, *(jnp.asarray(p, jnp.float32) for p in parameters)]
        y, pullback = jax.vjp(lambda *operands: layer(*operands, ref.EPSILON, dtype)[0], *operands)
        return [np.asarray(a, np.float64) for a in (y, *pullback(cotangent))]

    def errors(layer):
        pairs = zip(computed(layer, jnp.bfloat16), computed(plain, jnp.float32), strict=True)
        return np.array([np.linalg.norm(a - b) / np.linalg.norm(b) for a, b in pairs])

    found = errors(folded_batch_norm)
    assert (found <= 1.1 * errors(plain)).all()
    assert (found[2:] < 1e-4).all()
