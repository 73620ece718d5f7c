"""The training state: all that a step reads and writes."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import linen as nn
from flax import struct
from jax import Array


class TrainState(struct.PyTreeNode):
    """Holds what training carries from step to step, which is what a checkpoint saves.

    Attributes:
      step: steps done, int32.
      params: float32 parameters of the net.
      batch_stats: running mean and variance of each batch norm, float32; empty for a net without.
      opt_state: state of the optimiser.
      key: data of the random key that every random number of the run comes from (`jax.random.key_data`).
      warming: whether the learning rate is in its warm-up.
      warmup_error: running average of the training error, a fraction, for the warm-up rule.
    """

    step: Array
    params: Any
    batch_stats: Any
    opt_state: optax.OptState
    key: Array
    warming: Array
    warmup_error: Array

    @property
    def tested_variables(self) -> dict[str, Any]:
        """Returns the net's variables as they are evaluated: `{"params": ..., "batch_stats": ...}`."""
        return {"params": self.params, "batch_stats": self.batch_stats}


class AveragedTrainState(TrainState):
    """Holds the state of a run that averages its weights. Other runs' checkpoints have no room for the average.

    Attributes:
      average: exponential moving average of the variables, `{"params": ..., "batch_stats": ...}`; it starts as they do.
    """

    average: Any

    @property
    def tested_variables(self) -> dict[str, Any]:
        """Returns the averages."""
        return self.average

    def averaged(self, decay: float) -> "AveragedTrainState":
        """Returns the state with its average updated: decay * average + (1 - decay) * new."""
        new = {"params": self.params, "batch_stats": self.batch_stats}
        return self.replace(average=jax.tree.map(lambda a, b: decay * a + (1 - decay) * b, self.average, new))


def init_state(model: nn.Module, optimizer: optax.GradientTransformation, seed: int,
               image_shape: tuple[int, int, int], averaged: bool = False) -> TrainState:  # fmt: skip
    """Returns the state before the first step, which the seed determines on any number of devices."""
    init_key, step_key = jax.random.split(jax.random.key(seed))
    # Not under jit: XLA would compile the random numbers of every layer into one program, for over a minute at 56
    # layers; op by op, each shape compiles once. Lazily: the net itself need not be computed, nor compiled.
    variables = model.lazy_init(init_key, jax.ShapeDtypeStruct((1, *image_shape), jnp.float32), train=False)
    params = variables["params"]
    state = TrainState(
        step=jnp.zeros((), jnp.int32),
        params=params,
        batch_stats=variables.get("batch_stats", {}),
        opt_state=optimizer.init(params),
        key=jax.random.key_data(step_key),
        warming=jnp.ones((), bool),
        warmup_error=jnp.ones((), jnp.float32),
    )
    if not averaged:
        return state
    fields = {f.name: getattr(state, f.name) for f in dataclasses.fields(state)}
    # A copy: the step donates its state's memory, and no memory can be donated twice.
    return AveragedTrainState(**fields, average=jax.tree.map(jnp.copy, state.tested_variables))
