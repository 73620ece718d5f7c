"""Computes batch-norm statistics from training images after training, as the papers' authors did.

Their models have mean and variance "strictly computed using average (not moving average) on a sufficiently large
training batch after the training procedure" (github.com/KaimingHe/deep-residual-networks, README).
"""

from collections.abc import Iterable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax import Array
from jax.sharding import Mesh

from resnet_jax.data.pipeline import Pipeline
from resnet_jax.errors import UserError
from resnet_jax.evaluation.scoring import Report, Variables, silent
from resnet_jax.models.norm import BatchNorm
from resnet_jax.training.distributed import batch_sharded, replicated


def recompute_statistics(model: nn.Module, variables: Variables, batches: Iterable[Array]) -> dict[str, Any]:
    """Returns the net's variables with new batch-norm statistics: the plain average over batches.

    Each batch goes through the net as in training, normalised by its own statistics. The mean and the unbiased variance
    of each layer's inputs (of each group, with `bn_group_size`) are averaged over the batches with equal weights.

    Args:
      model: the net.
      variables: its variables.
      batches: normalised training images, (batch, height, width, channels).

    Raises:
      UserError: if there is no batch.
    """
    if not variables.get("batch_stats"):
        return dict(variables)

    @jax.jit
    def statistics(variables: Any, images: Array, key: Array) -> Any:
        nothing = jax.tree.map(jnp.zeros_like, variables["batch_stats"])
        _, mutated = model.apply(
            {**variables, "batch_stats": nothing}, images, train=True, mutable=["batch_stats"],
            rngs={"dropout": key},
        )  # fmt: skip
        # One step of the moving average from zero, divided by its weight, gives the batch's own statistics.
        return jax.tree.map(lambda s: s / (1 - BatchNorm.momentum), mutated["batch_stats"])

    total, count = None, 0
    for number, images in enumerate(batches):
        found = statistics(dict(variables), images, jax.random.key(number))
        total, count = found if total is None else jax.tree.map(jnp.add, total, found), count + 1
    if total is None:
        raise UserError("batch-norm statistics need at least one batch of training images")
    return {**variables, "batch_stats": jax.tree.map(lambda s: s / count, total)}


def from_training_images(model: nn.Module, variables: Variables, pipeline: Pipeline,
                         mesh: Mesh, images: int, report: Report = silent) -> dict[str, Any]:  # fmt: skip
    """Calls `recompute_statistics` on training images, augmented as in training.

    They are the first of the run; where training images grow, the first of the last size, which the weights are for.

    Args:
      model, variables, pipeline, mesh: of the run.
      images: their number, rounded up to whole training batches.
      report: called with (images done, images in all).

    Raises:
      UserError: for less than 1.
    """
    if images < 1:
        raise UserError(f"--recompute_bn={images} must be a number of training images, 1 or more")
    everywhere, shared = replicated(mesh), batch_sharded(mesh, axis=1)
    make = jax.jit(
        lambda resident, inputs, key: pipeline.train_batch(resident, jax.tree.map(lambda x: x[0], inputs), key)[0],
        in_shardings=(everywhere, shared, everywhere),
        out_shardings=batch_sharded(mesh),
    )
    count = -(-images // pipeline.batch_size)
    key = jax.random.key(pipeline.seed)

    def batches() -> Iterator[Array]:
        first = max(pipeline.size_changes, default=0)
        for done in range(count):
            inputs = pipeline.send(pipeline.train_inputs(first + done, 1), shared)
            yield make(pipeline.train, inputs, jax.random.fold_in(key, done))
            report((done + 1) * pipeline.batch_size, count * pipeline.batch_size)

    return recompute_statistics(model, variables, batches())
