"""The paper's SGD and its schedule (He et al. 2015, sections 3.4 and 4.2), and what later recipes take instead."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax import Array
from ml_collections import ConfigDict

#: Of lamb: the values of You et al. 2020.
LAMB_BETA_2, LAMB_EPSILON = 0.999, 1e-6


def make_optimizer(config: ConfigDict) -> optax.GradientTransformation:
    """Builds the optimiser, whose updates the step multiplies by minus the learning rate.

    "sgd" adds the weight decay to the gradient, and then applies momentum. "lars" (You et al. 2017) scales each
    kernel's update, decay included, to `trust_coefficient` times the kernel's norm ahead of the momentum; it neither
    scales nor decays scales and biases. "lamb" (You et al. 2020, algorithm 2) does so with Adam's update, whose beta_1
    is `momentum`, the decay added to it and the norm as it is; it leaves out scales and biases, too, as the published
    implementations do.

    The rate stays outside because the warm-up rule depends on the training error. As in Torch, the velocity holds
    no learning rate; Caffe's does, which differs for a few steps after the rate has changed.

    Args:
      config: `config.optimizer`.
    """
    if config.name == "lamb":
        return optax.chain(
            optax.scale_by_adam(config.momentum, LAMB_BETA_2, LAMB_EPSILON),
            optax.add_decayed_weights(config.weight_decay, _kernels),
            optax.masked(optax.scale_by_trust_ratio(), _kernels),
        )
    lars = config.name == "lars"
    decays = _kernels if lars or config.decay_scope == "kernels" else None
    return optax.chain(
        optax.add_decayed_weights(config.weight_decay, decays),
        optax.masked(optax.scale_by_trust_ratio(trust_coefficient=config.trust_coefficient), _kernels)
        if lars
        else optax.identity(),
        optax.trace(config.momentum, config.nesterov),
    )


def _kernels(params: Any) -> Any:
    """Returns True for kernels, False for scales and biases."""
    return jax.tree_util.tree_map_with_path(lambda path, _: path[-1].key == "kernel", params)


def make_schedule(config: ConfigDict) -> Callable[[Array], Array]:
    """Returns the learning rate as a function of the step (from 0), without its warm-up.

    "steps": the base rate, times `factor` from each boundary on. "cosine": base rate * (1 + cos(pi step / steps)) / 2
    (Loshchilov and Hutter 2017, equation 5, without restarts); a warm-up takes the place of its first steps. "poly":
    base rate * (1 - step / steps) ** power.

    Args:
      config: the whole config; boundaries are fractions of `config.steps`.
    """
    if config.schedule.name == "cosine":
        return optax.cosine_decay_schedule(base_rate(config), config.steps)
    if config.schedule.name == "poly":
        return optax.polynomial_schedule(base_rate(config), 0.0, config.schedule.power, config.steps)
    factors: dict[int, float] = {}
    for fraction in config.schedule.boundaries:  # in a short run, two of them may fall on one step
        step = round(fraction * config.steps)
        factors[step] = factors.get(step, 1.0) * config.schedule.factor
    return optax.piecewise_constant_schedule(base_rate(config), factors)


def base_rate(config: ConfigDict) -> float:
    """Returns the first learning rate, scaled with the batch if `base_batch_size` says what batch it is for."""
    base = config.optimizer.base_batch_size
    return config.optimizer.learning_rate * (config.batch_size / base if base else 1)


def warmup_rate(config: ConfigDict, step: Array) -> Array:
    """Returns the learning rate of a warm-up step: constant, or rising linearly to the base rate."""
    rate = config.schedule.warmup_rate
    if config.schedule.warmup != "linear":
        return jnp.full((), rate)
    return rate + (base_rate(config) - rate) * step / config.schedule.warmup_steps


#: Steps over which the training error is averaged for the warm-up rule (exponentially): at a batch of 128 one
#: batch alone scatters by 3.5 points around 80 %, and could end the warm-up by chance.
WARMUP_ERROR_WINDOW = 20


def smooth_error(average: Array, error: Array) -> Array:
    """Returns the running average of the training error (a fraction) after one more batch."""
    return average + (error - average) / WARMUP_ERROR_WINDOW


def in_warmup(config: ConfigDict, step: Array, warming: Array, error: Array) -> Array:
    """Returns whether a step still belongs to the warm-up, which never begins again once it is over.

    Args:
      config: `config.schedule`.
      step: the step, from 0.
      warming: whether the step before belonged to it.
      error: running average of the training error before this step, a fraction; 1 at the start.
    """
    rules = {
        "none": jnp.zeros_like(warming),
        "steps": step < config.warmup_steps,
        "linear": step < config.warmup_steps,
        "error": error >= config.warmup_error / 100,
    }
    return warming & rules[config.warmup]
