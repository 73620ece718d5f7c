"""The paper's SGD, schedule and warm-up against NumPy and hand-counted iterations."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from resnet_jax.config import base_config
from resnet_jax.models.registry import create_model
from resnet_jax.training.optimizer import (
    WARMUP_ERROR_WINDOW,
    in_warmup,
    make_optimizer,
    make_schedule,
    smooth_error,
    warmup_rate,
)


def numpy_sgd(w, grads, rate, momentum, decay, nesterov=False):
    """Sutskever et al. 2013 as Torch writes it: the decay enters the gradient, then the velocity."""
    velocity = np.zeros_like(w)
    for g in grads:
        g = g + decay * w
        velocity = momentum * velocity + g
        w = w - rate * (g + momentum * velocity if nesterov else velocity)
    return w


def numpy_lars(w, grads, rate, momentum, decay, trust):
    """You et al. 2017, algorithm 1, with the decayed gradient's norm in the local rate as in optax."""
    velocity = np.zeros_like(w)
    for g in grads:
        g = g + decay * w
        velocity = momentum * velocity + trust * np.linalg.norm(w) / np.linalg.norm(g) * g
        w = w - rate * velocity
    return w


def numpy_lamb(w, grads, rate, beta_1, decay, layerwise=True):
    """You et al. 2020, algorithm 2, with phi the identity."""
    m, v = np.zeros(w.shape), np.zeros(w.shape)
    for t, g in enumerate(grads, start=1):
        m, v = beta_1 * m + (1 - beta_1) * g, 0.999 * v + 0.001 * g**2
        update = m / (1 - beta_1**t) / (np.sqrt(v / (1 - 0.999**t)) + 1e-6)
        if layerwise:
            update = update + decay * w
            update = np.linalg.norm(w) / np.linalg.norm(update) * update
        w = w - rate * update
    return w


def run_optimizer(params, grads, rate, **fields):
    config = base_config().optimizer
    config.update(fields)
    optimizer = make_optimizer(config)
    state = optimizer.init(params)
    for g in grads:
        updates, state = optimizer.update(g, state, params)
        params = {k: params[k] - rate * updates[k] for k in params}
    return params


@pytest.mark.parametrize("nesterov", [False, True])
def test_decay_enters_before_momentum_on_every_parameter(nesterov):
    """A large decay tells the two orders apart: decay behind the momentum would not be carried by the velocity."""
    rng = np.random.default_rng(0)
    params = {name: rng.normal(size=5).astype(np.float32) for name in ("kernel", "scale", "bias")}
    grads = [{name: rng.normal(size=5).astype(np.float32) for name in params} for _ in range(4)]
    ours = run_optimizer(params, grads, 0.1, weight_decay=0.3, momentum=0.9, nesterov=nesterov)
    for name, value in params.items():
        expected = numpy_sgd(value, [g[name] for g in grads], 0.1, 0.9, 0.3, nesterov)
        np.testing.assert_allclose(ours[name], expected, rtol=1e-5, atol=1e-6)


def test_decay_scope_kernels_spares_scale_and_bias():
    params = {name: np.ones(2, np.float32) for name in ("kernel", "scale", "bias")}
    zeros = [{name: np.zeros(2, np.float32) for name in params}]
    ours = run_optimizer(params, zeros, 1.0, weight_decay=0.25, decay_scope="kernels")
    np.testing.assert_allclose(ours["kernel"], 0.75)
    np.testing.assert_array_equal(ours["scale"], 1)
    np.testing.assert_array_equal(ours["bias"], 1)


@pytest.mark.parametrize(
    ("net", "fields"),
    [
        ("cifar_resnet20", {"stage_sizes": (1, 1), "widths": (4, 8), "shortcut": "exclusive_gating"}),
        ("preact_resnet50", {"stage_sizes": (1, 1), "widths": (8, 16)}),
        ("vgg16", {"stage_sizes": (1, 1), "widths": (4, 8), "hidden": 8}),
    ],
)
def test_decay_scope_kernels_is_every_convolution_and_classifier_of_a_net(net, fields):
    """Known by their shapes: scales, shifts and biases are vectors."""
    model = create_model(net, **fields)
    shapes = jax.eval_shape(model.init, jax.random.key(0), jnp.zeros((1, 32, 32, 3)))["params"]
    params = jax.tree.map(lambda x: np.ones(x.shape, np.float32), shapes)
    config = base_config().optimizer
    config.update({"weight_decay": 0.25, "decay_scope": "kernels"})
    optimizer = make_optimizer(config)
    updates, _ = optimizer.update(jax.tree.map(np.zeros_like, params), optimizer.init(params), params)
    for path, update in jax.tree_util.tree_leaves_with_path(updates):
        np.testing.assert_array_equal(update, 0.25 if update.ndim > 1 else 0, err_msg=jax.tree_util.keystr(path))


@pytest.mark.parametrize(
    ("iteration", "rate"), [(0, 0.1), (31_999, 0.1), (32_000, 0.01), (47_999, 0.01), (48_000, 0.001), (63_999, 0.001)]
)
def test_schedule_of_the_paper_at_its_edges(iteration, rate):
    """ "0.1, and divide it by 10 at 32k and 48k iterations": 32,000 iterations have run at 0.1, counted from 0."""
    assert make_schedule(base_config())(jnp.array(iteration)) == pytest.approx(rate, rel=1e-6)


def test_schedule_shrinks_with_the_steps():
    config = base_config()
    config.steps = 400
    schedule = make_schedule(config)
    rates = [float(schedule(jnp.array(i))) for i in (199, 200, 299, 300)]
    assert rates == pytest.approx([0.1, 0.01, 0.01, 0.001], rel=1e-6)


def warmup_length(errors, **fields):
    """Number of steps in the warm-up for a sequence of training errors (fractions), one for each step."""
    config = base_config().schedule
    config.update(fields)
    warming, average, steps = jnp.array(True), jnp.array(1.0), []
    for step, error in enumerate(errors):
        warming = in_warmup(config, jnp.array(step), warming, average)
        steps.append(bool(warming))
        average = smooth_error(average, error)
    assert steps == sorted(steps, reverse=True), "a warm-up that is over must not begin again"
    return sum(steps)


def test_warmup_by_steps_ends_after_exactly_so_many():
    assert warmup_length([0.9] * 500, warmup="steps", warmup_steps=400) == 400


def test_warmup_by_error_ends_with_the_average_below_80_percent():
    """The average starts at 1 and follows 0.5 exponentially: below 0.8 once (1 - 1/window)^n < 0.6."""
    expected = int(np.ceil(np.log(0.6) / np.log(1 - 1 / WARMUP_ERROR_WINDOW)))
    assert warmup_length([0.5] * 100, warmup="error", warmup_error=80.0) == expected


def test_warmup_by_error_never_returns_and_never_ends_at_chance():
    assert warmup_length([0.5] * 50 + [0.95] * 50, warmup="error", warmup_error=80.0) < 50
    assert warmup_length([0.9] * 300, warmup="error", warmup_error=80.0) == 300


def test_one_lucky_batch_does_not_end_the_warmup():
    assert warmup_length([0.9] * 50 + [0.7] + [0.9] * 49, warmup="error", warmup_error=80.0) == 100


def test_lars_scales_kernels_and_leaves_scale_and_bias():
    rng = np.random.default_rng(1)
    params = {name: rng.normal(size=7).astype(np.float32) for name in ("kernel", "scale", "bias")}
    grads = [{name: rng.normal(size=7).astype(np.float32) for name in params} for _ in range(3)]
    ours = run_optimizer(params, grads, 2.0, name="lars", weight_decay=0.1, trust_coefficient=0.01)
    kernel = numpy_lars(params["kernel"], [g["kernel"] for g in grads], 2.0, 0.9, 0.1, 0.01)
    np.testing.assert_allclose(ours["kernel"], kernel, rtol=1e-5)
    for name in ("scale", "bias"):
        expected = numpy_sgd(params[name], [g[name] for g in grads], 2.0, 0.9, 0.0)
        np.testing.assert_allclose(ours[name], expected, rtol=1e-5)


def test_lamb_is_that_of_the_paper_on_kernels_and_adam_on_scale_and_bias():
    """Gradients as small as those of a mean over 1,000 classes: the epsilon is seen."""
    rng = np.random.default_rng(2)
    params = {name: rng.normal(size=7).astype(np.float32) for name in ("kernel", "scale", "bias")}
    grads = [{name: 1e-5 * rng.normal(size=7).astype(np.float32) for name in params} for _ in range(4)]
    ours = run_optimizer(params, grads, 0.1, name="lamb", weight_decay=0.3, momentum=0.8)
    for name, value in params.items():
        expected = numpy_lamb(value, [g[name] for g in grads], 0.1, 0.8, 0.3, layerwise=name == "kernel")
        np.testing.assert_allclose(ours[name], expected, rtol=2e-5)


def test_cosine_schedule_at_its_numbers():
    """Loshchilov and Hutter 2017, equation 5: from the whole rate to zero; boundaries do not enter."""
    config = base_config()
    config.steps, config.optimizer.learning_rate, config.schedule.name = 1000, 0.008, "cosine"
    schedule = make_schedule(config)
    rates = [float(schedule(jnp.array(i))) for i in (0, 250, 500, 750, 999)]
    expected = [0.008 * 0.5 * (1 + np.cos(np.pi * i / 1000)) for i in (0, 250, 500, 750, 999)]
    assert rates == pytest.approx(expected, abs=2e-9)
    assert rates[:3] == pytest.approx([0.008, 0.008 * (2 + np.sqrt(2)) / 4, 0.004], rel=1e-5)


def test_two_drops_in_one_step_are_both_made():
    """A schedule of 3 steps has its drops at 1.5 and 2.25, both rounded to 2: 0.1 times 0.1 from there on."""
    config = base_config()
    config.steps, config.optimizer.learning_rate, config.schedule.boundaries = 3, 0.1, (0.5, 0.75)
    schedule = make_schedule(config)
    assert [float(schedule(jnp.array(i))) for i in (0, 1, 2)] == pytest.approx([0.1, 0.1, 0.001])


def test_polynomial_schedule_at_its_numbers():
    """Liu et al. 2015, "ParseNet", section 4: (1 - step / steps) to the power of 0.9."""
    config = base_config()
    config.steps, config.optimizer.learning_rate, config.schedule.name = 1000, 0.01, "poly"
    schedule = make_schedule(config)
    rates = [float(schedule(jnp.array(i))) for i in (0, 250, 500, 999, 1000)]
    assert rates == pytest.approx([0.01 * (1 - i / 1000) ** 0.9 for i in (0, 250, 500, 999, 1000)], rel=1e-3)


def test_the_rate_scales_with_the_batch():
    """Goyal et al. 2017: 0.1 for 256, so 3.2 for 8192; drops scale along."""
    config = base_config()
    config.batch_size, config.optimizer.base_batch_size = 8192, 256
    rates = [float(make_schedule(config)(jnp.array(i))) for i in (0, 32_000)]
    assert rates == pytest.approx([3.2, 0.32], rel=1e-6)


def test_linear_warmup_rises_to_the_scaled_rate():
    """Goyal et al. 2017, 2.2: from 0.1 by equal amounts; the first step behind it has the whole rate."""
    config = base_config()
    config.batch_size, config.optimizer.base_batch_size = 1280, 128
    config.schedule.update({"warmup": "linear", "warmup_rate": 0.1, "warmup_steps": 10})
    rates = [float(warmup_rate(config, jnp.array(i))) for i in (0, 5, 9, 10)]
    assert rates == pytest.approx([0.1, 0.55, 0.91, 1.0], rel=1e-6)
    assert warmup_length([0.9] * 30, warmup="linear", warmup_steps=10) == 10


def test_no_warmup_is_no_warmup():
    assert warmup_length([0.9] * 5, warmup="none") == 0
