"""The jitted steps: forward, backward and update of one batch, and the errors of one evaluation batch."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import linen as nn
from jax import Array
from jax.sharding import Mesh
from ml_collections import ConfigDict

from resnet_jax.data.mixing import soften
from resnet_jax.data.resident import ResidentPipeline
from resnet_jax.data.streaming import StreamingPipeline
from resnet_jax.training.loss import Loss, cross_entropy, make_loss
from resnet_jax.training.mesh import batch_sharded, platform, replicated
from resnet_jax.training.optimizer import in_warmup, make_schedule, smooth_error, warmup_rate
from resnet_jax.training.state import AveragedTrainState, TrainState
from resnet_jax.training.tuning import TunedModel, changes_training, keep_frozen, make_tuned_optimizer

Metrics = dict[str, Array]
TrainStep = jax.stages.Wrapped
EvalStep = jax.stages.Wrapped
Pipeline = ResidentPipeline | StreamingPipeline


#: How `make_packed_step` can put runs together.
PACKINGS = ("vmap", "unrolled")


def is_error(logits: Array, labels: Array) -> Array:
    """1.0 where the largest logit is not the label's, or any is not finite, (batch,). Of soft labels, the largest."""
    if labels.ndim == 2:
        labels = jnp.argmax(labels, axis=-1)
    # The argmax of NaNs is class 0, which would be right for every tenth image.
    wrong = (jnp.argmax(logits, axis=-1) != labels) | ~jnp.all(jnp.isfinite(logits), axis=-1)
    return wrong.astype(jnp.float32)


def make_gradients(model: nn.Module, loss: Loss = cross_entropy) -> Callable[..., tuple[Any, Any, Metrics]]:
    """The loss's gradient: (params, batch_stats, images, labels, key for dropout) -> (grads, batch_stats, metrics).

    Metrics are scalars: `loss` (the mean of `loss`, without the decay) and `error` (a fraction, of the batch as
    trained on).
    """

    def gradients(params: Any, batch_stats: Any, images: Array, labels: Array, key: Array) -> tuple[Any, Any, Metrics]:
        def loss_fn(params: Any) -> tuple[Array, tuple[Array, Any]]:
            variables = {"params": params, "batch_stats": batch_stats}
            logits, mutated = model.apply(variables, images, train=True, mutable=["batch_stats"], rngs={"dropout": key})
            return loss(logits, labels).mean(), (logits, mutated.get("batch_stats", {}))

        (mean, (logits, stats)), grads = jax.value_and_grad(loss_fn, has_aux=True)(params)
        return grads, stats, {"loss": mean, "error": is_error(logits, labels).mean()}

    return gradients


def make_accumulated_gradients(
    model: nn.Module, micro_batches: int, mesh: Mesh, loss: Loss = cross_entropy
) -> Callable[..., tuple[Any, Any, Metrics]]:
    """Like `make_gradients`, the batch taken in consecutive micro-batches whose results are averaged.

    Equal to the whole batch's as far as no statistics cross micro-batches: with batch-norm groups that divide one. All
    micro-batches start from the same running statistics, so that these, too, follow the groups' average. Dropout draws
    other masks.
    """
    gradients = make_gradients(model, loss)
    if micro_batches == 1:
        return gradients
    unrolled = platform(mesh) == "cpu"  # where XLA has no fast convolution inside a loop

    def accumulated(
        params: Any, batch_stats: Any, images: Array, labels: Array, key: Array
    ) -> tuple[Any, Any, Metrics]:
        def split(x: Array) -> Array:
            parts = x.reshape(micro_batches, -1, *x.shape[1:])
            return jax.lax.with_sharding_constraint(parts, batch_sharded(mesh, axis=1))

        parts = (split(images), split(labels), jax.random.split(key, micro_batches))

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


def make_update(model: nn.Module, config: ConfigDict, mesh: Mesh) -> Callable[..., tuple[TrainState, Metrics]]:
    """The update by one batch: (state, images, labels, key for dropout) -> (state, metrics).

    Metrics are scalars: those of `make_gradients`, `learning_rate`, and the global norms `gradient_norm` (without the
    decay) and `update_norm` (of the parameters' change).
    """
    tuned = changes_training(config)
    net: Any = TunedModel(model, config.finetune) if tuned else model
    gradients = make_accumulated_gradients(net, config.accumulate, mesh, make_loss(config))
    optimizer = make_tuned_optimizer(config)
    schedule = make_schedule(config)

    def update(state: TrainState, images: Array, labels: Array, key: Array) -> tuple[TrainState, Metrics]:
        grads, batch_stats, metrics = gradients(state.params, state.batch_stats, images, labels, key)
        warming = in_warmup(config.schedule, state.step, state.warming, state.warmup_error)
        # A warm-up that has not ended by a drop of the schedule does not stay above it.
        rate = schedule(state.step)
        rate = jnp.where(warming, jnp.minimum(warmup_rate(config, state.step), rate), rate)
        velocity, opt_state = optimizer.update(grads, state.opt_state, state.params)
        before = state
        state = state.replace(
            step=state.step + 1,
            params=jax.tree.map(lambda p, v: p - rate * v, state.params, velocity),
            batch_stats=batch_stats,
            opt_state=opt_state,
            warming=warming,
            warmup_error=smooth_error(state.warmup_error, metrics["error"]),
        )
        if isinstance(state, AveragedTrainState):
            state = state.averaged(config.regularization.ema_decay)
        if tuned:
            state = _with_frozen(config.finetune, before, state)
        norms = {"gradient_norm": optax.global_norm(grads), "update_norm": rate * optax.global_norm(velocity)}
        return state, metrics | {"learning_rate": rate} | norms

    return update


def _with_frozen(config: ConfigDict, before: TrainState, after: TrainState) -> TrainState:
    """The state after an update, with what is frozen bit for bit as it was before."""
    new = {"params": after.params, "batch_stats": after.batch_stats}
    kept = keep_frozen(config, {"params": before.params, "batch_stats": before.batch_stats}, new)
    after = after.replace(**kept)
    if isinstance(before, AveragedTrainState) and isinstance(after, AveragedTrainState):
        after = after.replace(average=keep_frozen(config, before.average, after.average))
    return after


def _make_one_step(model: nn.Module, config: ConfigDict, pipeline: Pipeline, mesh: Mesh) -> Callable[..., Any]:
    """One step of one run: (state, resident data, inputs of one step) -> (state, metrics)."""
    update = make_update(model, config, mesh)
    options = config.regularization
    soft = {
        "classes": model.num_classes,
        "smoothing": options.label_smoothing,
        "mixup_alpha": options.mixup,
        "cutmix_alpha": options.cutmix,
    }

    def one(state: TrainState, resident: Any, inputs: Any) -> tuple[TrainState, Metrics]:
        key = jax.random.fold_in(jax.random.wrap_key_data(state.key), state.step)
        augment_key, dropout_key = jax.random.split(key)
        batch = pipeline.train_batch(resident, inputs, augment_key)
        softened = soften(jax.random.fold_in(augment_key, 3), *batch, **soft)
        images, labels = jax.lax.with_sharding_constraint(softened, batch_sharded(mesh))
        return update(state, images, labels, dropout_key)

    return one


def _one_after_the_other(step: Callable[..., Any], states: Any, resident: Any, inputs: Any) -> tuple[Any, Any]:
    """As many steps as the leading axis of the inputs, (count, ...), says; the metrics get that axis."""
    if len(jax.tree.leaves(inputs)[0]) > 1:
        return jax.lax.scan(lambda s, i: step(s, resident, i), states, inputs)
    # XLA's CPU backend has no fast convolution inside a loop: a scan of one step would cost six times as much.
    states, metrics = step(states, resident, jax.tree.map(lambda x: x[0], inputs))
    return states, jax.tree.map(lambda m: m[None], metrics)


def _jit_train_step(step: Callable[..., Any], mesh: Mesh) -> TrainStep:
    everywhere = replicated(mesh)
    return jax.jit(
        step,
        donate_argnums=0,
        in_shardings=(everywhere, everywhere, batch_sharded(mesh, axis=1)),
        out_shardings=(everywhere, everywhere),
    )


def make_train_step(model: nn.Module, config: ConfigDict, pipeline: Pipeline, mesh: Mesh) -> TrainStep:
    """The jitted (state, resident data, inputs) -> (state, metrics), for one or several steps at once.

    Inputs are those of `pipeline.train_inputs`, (count, batch_size, ...), sharded along the batch; metrics are
    (count,). The state is donated. Random numbers come from (state.key, state.step) alone.
    """
    one = _make_one_step(model, config, pipeline, mesh)

    def several(state: TrainState, resident: Any, inputs: Any) -> tuple[TrainState, Metrics]:
        return _one_after_the_other(one, state, resident, inputs)

    return _jit_train_step(several, mesh)


def make_packed_step(
    model: nn.Module, config: ConfigDict, pipeline: Pipeline, mesh: Mesh, packing: str | None = None
) -> TrainStep:
    """The steps of several runs in one program: (states, resident data, inputs) -> (states, metrics), tuples.

    What one run computes does not depend on the others, nor on its being one of several but for the order of sums;
    the runs may be at different steps.

    Args:
      model, config, pipeline, mesh: of any of the runs, which differ in their seeds alone.
      packing: "vmap": each operation computes all runs, convolutions as one of several groups, which fills a fast
        device better. "unrolled": each run has its own operations, which a CPU computes side by side. None: the one
        for the mesh's platform.
    """
    one = _make_one_step(model, config, pipeline, mesh)

    def unrolled(states: Any, resident: Any, inputs: Any) -> Any:
        both = [one(s, resident, i) for s, i in zip(states, inputs, strict=True)]
        return tuple(state for state, _ in both), tuple(metrics for _, metrics in both)

    def several(states: tuple[TrainState, ...], resident: Any, inputs: tuple[Any, ...]) -> Any:
        if (packing or default_packing(mesh)) == "unrolled":
            return _one_after_the_other(unrolled, states, resident, inputs)
        together = jax.vmap(one, in_axes=(0, None, 0))
        stacked = jax.tree.map(lambda *x: jnp.stack(x), *states)
        # The steps come first in the inputs and the metrics, the runs behind them.
        steps_first = jax.tree.map(lambda *x: jnp.stack(x, axis=1), *inputs)
        stacked, metrics = _one_after_the_other(together, stacked, resident, steps_first)
        runs = range(len(states))
        return (
            tuple(jax.tree.map(lambda x, i=i: x[i], stacked) for i in runs),
            tuple(jax.tree.map(lambda m, i=i: m[:, i], metrics) for i in runs),
        )

    return _jit_train_step(several, mesh)


def default_packing(mesh: Mesh) -> str:
    """How `make_packed_step` puts runs together where it is not told."""
    return "unrolled" if platform(mesh) == "cpu" else "vmap"


def make_eval_step(model: nn.Module, pipeline: Pipeline, mesh: Mesh) -> EvalStep:
    """The jitted (params, batch_stats, resident data, inputs, mask) -> sums over the batch.

    The sums are `loss`, `error` and `count`, over examples with mask 1.
    """

    def evaluate(params: Any, batch_stats: Any, resident: Any, inputs: Any, mask: Array) -> Metrics:
        images, labels = pipeline.eval_batch(resident, inputs)
        logits: Any = model.apply({"params": params, "batch_stats": batch_stats}, images, train=False)
        return {
            "loss": jnp.sum(cross_entropy(logits, labels) * mask),
            "error": jnp.sum(is_error(logits, labels) * mask),
            "count": jnp.sum(mask),
        }

    everywhere, shared = replicated(mesh), batch_sharded(mesh)
    return jax.jit(
        evaluate, in_shardings=(everywhere, everywhere, everywhere, shared, shared), out_shardings=everywhere
    )


def evaluate_test(step: EvalStep, state: TrainState, pipeline: Pipeline, mesh: Mesh) -> dict[str, float]:
    """Single-view `test_error` in percent and mean `test_loss` over the test set, each example once."""
    shared = batch_sharded(mesh)
    tested = state.tested_variables
    sums = [
        step(tested["params"], tested["batch_stats"], pipeline.test, *pipeline.send(batch, shared))
        for batch in pipeline.test_inputs()
    ]
    total = {key: sum(float(s[key]) for s in sums) for key in sums[0]}
    assert total["count"] == pipeline.test_size, (total["count"], pipeline.test_size)
    return {"test_error": 100 * total["error"] / total["count"], "test_loss": total["loss"] / total["count"]}
