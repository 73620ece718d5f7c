"""Batch normalisation against NumPy: formula, running statistics, groups, precision."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from resnet_jax.errors import UserError
from resnet_jax.models import ResNet
from resnet_jax.models.norm import BatchNorm
from tests.models import reference as ref

KEY = jax.random.key(0)


def train(norm, variables, x):
    """Output and new running (mean, variance) of one training step."""
    y, changed = norm.apply(variables, x, train=True, mutable=["batch_stats"])
    return y, changed["batch_stats"]["mean"], changed["batch_stats"]["var"]


@pytest.fixture
def x():
    """Eight examples of three channels with means and deviations of their own, also from example to example."""
    rng = np.random.default_rng(3)
    scale, shift = rng.uniform(0.5, 3, (8, 1, 1, 3)), rng.normal(size=(8, 1, 1, 3))
    return (rng.normal(size=(8, 4, 5, 3)) * scale + shift).astype(np.float32)


def test_training_normalises_by_the_batch(x):
    norm = BatchNorm()
    variables = ref.random_variables(norm, x, train=True)
    p = variables["params"]
    ref.assert_close(train(norm, variables, x)[0], ref.batch_norm(x, p["scale"], p["bias"]))


def test_testing_normalises_by_the_running_statistics(x):
    norm = BatchNorm()
    variables = ref.random_variables(norm, x, train=False)
    p, s = variables["params"], variables["batch_stats"]
    expected = ref.normalise(x.astype(np.float64), s["mean"], s["var"], p["scale"], p["bias"])
    ref.assert_close(norm.apply(variables, x, train=False), expected)


def test_testing_changes_nothing(x):
    norm = BatchNorm(group_size=3)  # does not divide the batch, and need not
    variables = ref.random_variables(norm, x, train=False)
    _, changed = norm.apply(variables, x, train=False, mutable=["batch_stats"])
    for name in ("mean", "var"):
        np.testing.assert_array_equal(changed["batch_stats"][name], variables["batch_stats"][name])


def test_epsilon_is_added_to_the_variance():
    """Deviation 1e-3: epsilon 1e-5 outweighs the variance 1e-6, and 1e-3 would crush the output."""
    x = 1e-3 * np.tile([1.0, -1.0], 8).astype(np.float32).reshape(4, 2, 2, 1)
    norm = BatchNorm()
    variables = norm.init(KEY, x, train=True)
    expected = np.abs(np.float64(x)) / np.sqrt(1e-6 + 1e-5)
    np.testing.assert_allclose(np.abs(train(norm, variables, x)[0]), expected, rtol=1e-4)


def test_running_statistics_decay_by_a_tenth_with_unbiased_variance(x):
    """0.9 old + 0.1 new; the new variance divides by n - 1, as in Caffe and Torch."""
    x = x[:2, :2, :2]  # eight values to a channel: biased and unbiased differ by a seventh
    norm = BatchNorm()
    variables = ref.random_variables(norm, x, train=True)
    old = variables["batch_stats"]
    flat = np.float64(x).reshape(-1, 3)
    _, mean, var = train(norm, variables, x)
    ref.assert_close(mean, 0.9 * old["mean"] + 0.1 * flat.mean(axis=0))
    ref.assert_close(var, 0.9 * old["var"] + 0.1 * flat.var(axis=0, ddof=1))


def test_initialisation_leaves_the_running_statistics_at_zero_and_one(x):
    stats = BatchNorm().init(KEY, x, train=True)["batch_stats"]
    np.testing.assert_array_equal(stats["mean"], np.zeros(3))
    np.testing.assert_array_equal(stats["var"], np.ones(3))


@pytest.mark.parametrize("size", [1, 2, 4, 8])
def test_group_normalises_each_run_of_consecutive_examples_alone(x, size):
    norm = BatchNorm(group_size=size)
    variables = ref.random_variables(norm, x, train=True)
    p, old = variables["params"], variables["batch_stats"]
    groups = [x[i : i + size] for i in range(0, 8, size)]
    y, mean, var = train(norm, variables, x)
    ref.assert_close(y, np.concatenate([ref.batch_norm(group, p["scale"], p["bias"]) for group in groups]))
    # Running statistics follow the average over groups of each group's mean and unbiased variance.
    flat = [np.float64(group).reshape(-1, 3) for group in groups]
    ref.assert_close(mean, 0.9 * old["mean"] + 0.1 * np.mean([g.mean(axis=0) for g in flat], axis=0))
    ref.assert_close(var, 0.9 * old["var"] + 0.1 * np.mean([g.var(axis=0, ddof=1) for g in flat], axis=0))


def test_groups_matter_for_these_inputs(x):
    """So that the test above could fail."""
    outputs = [np.asarray(train(BatchNorm(group_size=g), BatchNorm().init(KEY, x, train=True), x)[0]) for g in (0, 2)]
    assert np.abs(outputs[0] - outputs[1]).max() > 0.1


def test_group_size_zero_is_the_whole_batch(x):
    variables = ref.random_variables(BatchNorm(), x, train=True)
    for whole, zero in zip(train(BatchNorm(group_size=8), variables, x), train(BatchNorm(), variables, x), strict=True):
        np.testing.assert_array_equal(whole, zero)


@pytest.mark.parametrize("size", [3, 16])
def test_group_that_does_not_divide_the_batch_is_a_user_error(x, size):
    norm = BatchNorm(group_size=size)
    variables = norm.init(KEY, x, train=False)
    with pytest.raises(UserError, match=f"bn_group_size={size} .*batch of 8.*divisor of 8"):
        norm.apply(variables, x, train=True, mutable=["batch_stats"])


def test_group_size_of_a_net_reaches_its_norms():
    """A net with groups of 2 treats the halves of a batch of 4 as if each were a batch of its own."""
    x = ref.images(4, 8, 8, 3)
    fields = {"stage_sizes": (1, 1), "widths": (4, 8), "stem": "cifar", "num_classes": 5, "shortcut": "B"}
    grouped, whole = ResNet(bn_group_size=2, **fields), ResNet(**fields)
    variables = ref.random_variables(whole, x)

    def logits(net, images):
        return net.apply(variables, images, train=True, mutable=["batch_stats"])[0]

    ref.assert_close(logits(grouped, x), np.concatenate([logits(whole, x[:2]), logits(whole, x[2:])]))


def bfloat16_images():
    """Values 3 and 3.0625 (neighbours but three in bfloat16): mean 3.03125, variance 2^-10."""
    x = np.full((16, 8, 8, 2), 3.0, np.float32)
    x[:, ::2] += 0.0625
    return jnp.asarray(x, jnp.bfloat16)


def test_bfloat16_statistics_are_taken_in_float32():
    """In bfloat16 the mean would round to 3.03 and the mean square, 9.19, to steps of 1/16: no variance is left."""
    x = bfloat16_images()
    exact = np.asarray(x, np.float64)
    mean, var = ref.moments(exact)
    rounded = jnp.mean(jnp.square(x)) - jnp.square(jnp.mean(x))
    assert abs(float(rounded) - var[0]) > 0.5 * var[0], "the naive way must fail, or this test proves nothing"

    norm = BatchNorm(dtype=jnp.bfloat16)
    variables = norm.init(KEY, x, train=True)
    y, new_mean, new_var = train(norm, variables, x)
    count = exact.size // 2
    np.testing.assert_allclose(new_mean, 0.1 * mean, rtol=1e-6)
    np.testing.assert_allclose((np.float64(new_var) - 0.9) / 0.1, var * count / (count - 1), rtol=5e-3)
    np.testing.assert_allclose(np.asarray(y, np.float64), ref.batch_norm(exact, 1, 0), rtol=1 / 128)


@pytest.mark.parametrize("is_training", [True, False])
@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_output_has_the_dtype_and_everything_kept_is_float32(dtype, is_training):
    x = bfloat16_images()
    norm = BatchNorm(dtype=dtype)
    variables = norm.init(KEY, x, train=is_training)
    y, changed = norm.apply(variables, x, train=is_training, mutable=["batch_stats"])
    assert y.dtype == dtype
    assert y.shape == x.shape
    kept = [*variables["params"].values(), *changed["batch_stats"].values()]
    assert {value.dtype for value in kept} == {jnp.dtype("float32")}


@pytest.mark.parametrize("offset", [10, 100])
def test_a_large_mean_does_not_swamp_the_variance(offset):
    """Mean square less squared mean loses digits in float32: at 100 deviations the result is still good to 1 %."""
    x = (np.random.default_rng(0).normal(size=(8, 8, 8, 2)) + offset).astype(np.float32)
    norm = BatchNorm()
    y = train(norm, norm.init(KEY, x, train=True), x)[0]
    np.testing.assert_allclose(y, ref.batch_norm(x, 1, 0), atol=0.01 * 4)


def test_constant_channels_keep_a_variance_of_zero_or_more():
    """Mean square less squared mean can round to less than zero, which would make the output NaN."""
    values = np.random.default_rng(0).uniform(100, 2000, 64).astype(np.float32)
    x = np.tile(values, (4, 3, 3, 1))
    naive = np.mean(x * x, axis=(0, 1, 2), dtype=np.float32) - np.mean(x, axis=(0, 1, 2)) ** 2
    assert naive.min() < -1e-3, "some of these must round below zero, or this test proves nothing"
    norm = BatchNorm()
    y, _, var = train(norm, norm.init(KEY, x, train=True), x)
    assert np.isfinite(y).all()
    assert (np.asarray(var) >= np.float32(0.9)).all(), "0.9 of the initial one, and nothing taken off"
