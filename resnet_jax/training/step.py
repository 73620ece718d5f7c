"""The training state and the jitted steps: forward, backward and update of one batch, and its evaluation."""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import linen as nn
from flax import struct
from jax import Array
from jax.sharding import Mesh
from ml_collections import ConfigDict

from resnet_jax.data.pipeline import Batches
from resnet_jax.errors import UserError
from resnet_jax.tasks.task import Task
from resnet_jax.training.distributed import batch_sharded, platform, replicated
from resnet_jax.training.finetune import TunedModel, changes_training, keep_frozen, make_tuned_optimizer
from resnet_jax.training.optimizer import in_warmup, make_schedule, smooth_error, warmup_rate

Metrics = dict[str, Array]


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
    def variables(self) -> dict[str, Any]:
        """Returns the net's variables: `{"params": ..., "batch_stats": ...}`."""
        return {"params": self.params, "batch_stats": self.batch_stats}

    @property
    def tested_variables(self) -> dict[str, Any]:
        """Returns the variables that are evaluated."""
        return self.variables

    def starting_from(self, variables: dict[str, Any]) -> "TrainState":
        """Returns the state with other variables, from which an average starts, too."""
        return self.replace(**variables)


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

    def starting_from(self, variables: dict[str, Any]) -> "AveragedTrainState":
        # A copy: the step donates its state's memory, and no memory can be donated twice.
        return self.replace(**variables, average=jax.tree.map(jnp.copy, variables))

    def averaged(self, decay: float) -> "AveragedTrainState":
        """Returns the state with its average updated: decay * average + (1 - decay) * new."""
        average = jax.tree.map(lambda a, b: decay * a + (1 - decay) * b, self.average, self.variables)
        return self.replace(average=average)


def init_state(model: nn.Module, config: ConfigDict, image_shape: Sequence[int]) -> TrainState:
    """Returns the state before the first step, which the seed determines on any number of devices."""
    init_key, step_key = jax.random.split(jax.random.key(config.seed))
    # Not under jit: XLA would compile the random numbers of every layer into one program, for over a minute at 56
    # layers; op by op, each shape compiles once. Lazily: the net itself need not be computed, nor compiled.
    found = model.lazy_init(init_key, jax.ShapeDtypeStruct((1, *image_shape), jnp.float32), train=False)
    variables = {"params": found["params"], "batch_stats": found.get("batch_stats", {})}
    fields: dict[str, Any] = {
        "step": jnp.zeros((), jnp.int32),
        "opt_state": make_tuned_optimizer(config).init(variables["params"]),
        "key": jax.random.key_data(step_key),
        "warming": jnp.ones((), bool),
        "warmup_error": jnp.ones((), jnp.float32),
    }
    if config.regularization.ema_decay == 0:
        return TrainState(**variables, **fields)
    return AveragedTrainState(**variables, **fields, average=None).starting_from(variables)


def make_train_step(
    model: nn.Module, task: Task, config: ConfigDict, batches: Batches, mesh: Mesh
) -> jax.stages.Wrapped:
    """Returns the jitted (state, resident data, indices) -> (state, metrics) of one or several steps.

    The indices are those of `pipeline.train_inputs`, (steps, batch_size, ...), sharded along the batch; metrics are
    (steps,). The state is donated. All random numbers come from (state.key, state.step).
    """
    update = make_update(model, task, config, mesh)

    def step(state: TrainState, resident: Any, indices: Any) -> tuple[TrainState, Metrics]:
        augment_key, dropout_key = step_keys(state.key, state.step)
        batch = training_batch(task, batches, resident, indices, augment_key)
        inputs, targets = jax.lax.with_sharding_constraint(batch, batch_sharded(mesh))
        return update(state, inputs, targets, dropout_key)

    def steps(state: TrainState, resident: Any, indices: Any) -> tuple[TrainState, Metrics]:
        if len(jax.tree.leaves(indices)[0]) > 1:
            return jax.lax.scan(lambda state, of_step: step(state, resident, of_step), state, indices)
        # XLA's CPU backend has no fast convolution inside a loop: a scan of one step would cost six times as much.
        state, metrics = step(state, resident, jax.tree.map(lambda x: x[0], indices))
        return state, jax.tree.map(lambda m: m[None], metrics)

    everywhere = replicated(mesh)
    return jax.jit(
        steps,
        donate_argnums=0,
        in_shardings=(everywhere, everywhere, batch_sharded(mesh, axis=1)),
        out_shardings=(everywhere, everywhere),
    )


def step_keys(key: Array, step: Array | int) -> Array:
    """Returns the keys of a step, for what is drawn in its batch and for dropout, from `TrainState.key`."""
    return jax.random.split(jax.random.fold_in(jax.random.wrap_key_data(key), step))


def training_batch(task: Task, batches: Batches, resident: Any, indices: Any, key: Array) -> tuple[Any, Any]:
    """Returns the inputs and targets of one step as the net sees them: augmented, and mixed if the task does that."""
    return task.augment(jax.random.fold_in(key, 3), *batches.train_batch(resident, indices, key))


def make_update(
    model: nn.Module, task: Task, config: ConfigDict, mesh: Mesh
) -> Callable[..., tuple[TrainState, Metrics]]:
    """Returns the update by one batch: (state, inputs, targets, key for dropout) -> (state, metrics).

    Metrics are scalars: those of `make_gradients`, `learning_rate`, and the global norms `gradient_norm` (without the
    decay) and `update_norm` (of the parameters' change).
    """
    tuned = changes_training(config)
    net: Any = TunedModel(model, config.finetune) if tuned else model
    gradients = make_accumulated_gradients(net, task, config.accumulate, mesh)
    optimizer, schedule = make_tuned_optimizer(config), make_schedule(config)

    def update(state: TrainState, inputs: Any, targets: Any, key: Array) -> tuple[TrainState, Metrics]:
        grads, batch_stats, metrics = gradients(state.params, state.batch_stats, inputs, targets, key)
        if config.schedule.warmup == "error" and "error" not in metrics:
            raise UserError("config.schedule.warmup=error needs a task whose loss measures `error`; choose another")
        warming = in_warmup(config.schedule, state.step, state.warming, state.warmup_error)
        # A warm-up that has not ended by a drop of the schedule does not stay above it.
        rate = schedule(state.step)
        rate = jnp.where(warming, jnp.minimum(warmup_rate(config, state.step), rate), rate)
        velocity, opt_state = optimizer.update(grads, state.opt_state, state.params)
        new = state.replace(
            step=state.step + 1,
            params=jax.tree.map(lambda p, v: p - rate * v, state.params, velocity),
            batch_stats=batch_stats,
            opt_state=opt_state,
            warming=warming,
            warmup_error=smooth_error(state.warmup_error, metrics.get("error", jnp.ones(()))),
        )
        if isinstance(new, AveragedTrainState):
            new = new.averaged(config.regularization.ema_decay)
        if tuned:
            new = keep_frozen(config.finetune, state, new)
        norms = {"gradient_norm": optax.global_norm(grads), "update_norm": rate * optax.global_norm(velocity)}
        return new, metrics | {"learning_rate": rate} | norms

    return update


def make_gradients(model: nn.Module, task: Task) -> Callable[..., tuple[Any, Any, Metrics]]:
    """Returns (params, batch_stats, inputs, targets, key for dropout) -> (gradients, batch_stats, metrics).

    Metrics are scalars: `loss`, without the decay, and what the task measures of the batch as it was trained on.
    """

    def gradients(params: Any, batch_stats: Any, inputs: Any, targets: Any, key: Array) -> tuple[Any, Any, Metrics]:
        def loss_fn(params: Any) -> tuple[Array, tuple[Metrics, Any]]:
            variables = {"params": params, "batch_stats": batch_stats}
            outputs, mutated = model.apply(
                variables, inputs, train=True, mutable=["batch_stats"], rngs={"dropout": key}
            )
            loss, metrics = task.loss(outputs, inputs, targets)
            return loss, (metrics, mutated.get("batch_stats", {}))

        (loss, (metrics, batch_stats_)), grads = jax.value_and_grad(loss_fn, has_aux=True)(params)
        return grads, batch_stats_, {"loss": loss} | metrics

    return gradients


def make_accumulated_gradients(
    model: nn.Module, task: Task, micro_batches: int, mesh: Mesh
) -> Callable[..., tuple[Any, Any, Metrics]]:
    """Returns what `make_gradients` does, the batch taken in consecutive micro-batches whose results are averaged.

    That equals the whole batch's gradient if no statistics cross micro-batches, with batch-norm groups that divide one,
    and if the loss is a mean over examples: those of segmentation and detection are means over the labelled pixels and
    the drawn boxes, of which one micro-batch may have fewer than another.
    All micro-batches start from the same running statistics, so that these follow the groups' average, too. Dropout
    draws other masks.
    """
    gradients = make_gradients(model, task)
    if micro_batches == 1:
        return gradients
    unrolled = platform(mesh) == "cpu"  # where XLA has no fast convolution inside a loop

    def accumulated(params: Any, batch_stats: Any, inputs: Any, targets: Any, key: Array) -> tuple[Any, Any, Metrics]:
        def split(x: Array) -> Array:
            parts = x.reshape(micro_batches, -1, *x.shape[1:])
            return jax.lax.with_sharding_constraint(parts, batch_sharded(mesh, axis=1))

        parts = (*jax.tree.map(split, (inputs, targets)), jax.random.split(key, micro_batches))

        def add(total: Any, part: Any) -> tuple[Any, None]:
            return jax.tree.map(jnp.add, total, gradients(params, batch_stats, *part)), None

        total = gradients(params, batch_stats, *jax.tree.map(lambda x: x[0], parts))
        if unrolled:
            for i in range(1, micro_batches):
                total, _ = add(total, jax.tree.map(lambda x, i=i: x[i], parts))
        else:
            total, _ = jax.lax.scan(add, total, jax.tree.map(lambda x: x[1:], parts))
        return jax.tree.map(lambda x: x / micro_batches, total)

    return accumulated


def make_eval_step(model: nn.Module, task: Task, batches: Batches, mesh: Mesh) -> jax.stages.Wrapped:
    """Returns the jitted (variables, resident data, indices, mask) -> what `task.evaluate` gives of the batch."""

    def evaluate(variables: Any, resident: Any, indices: Any, mask: Array) -> Metrics:
        inputs, targets = batches.eval_batch(resident, indices)
        return task.evaluate(model.apply(variables, inputs, train=False), inputs, targets, mask)

    everywhere, shared = replicated(mesh), batch_sharded(mesh)
    return jax.jit(evaluate, in_shardings=(everywhere, everywhere, shared, shared), out_shardings=everywhere)
