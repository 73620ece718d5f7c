"""Batch-norm statistics computed from training images after training, as the papers' authors did.

While a net trains, running averages follow its statistics. The authors' models instead have, by the notes on their
release (github.com/KaimingHe/deep-residual-networks, README), mean and variance "strictly computed using average (not
moving average) on a sufficiently large training batch after the training procedure".
"""

from collections.abc import Iterable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax import Array
from jax.sharding import Mesh

from resnet_jax.data.pipeline import ResidentPipeline
from resnet_jax.data.streaming import StreamingPipeline
from resnet_jax.errors import UserError
from resnet_jax.evaluation.scoring import Report, Variables, silent
from resnet_jax.models.norm import BatchNorm
from resnet_jax.training.mesh import batch_sharded, replicated


def recompute_statistics(model: nn.Module, variables: Variables, batches: Iterable[Array]) -> dict[str, Any]:
    """The net's variables with new batch-norm statistics: the plain average over batches.

    Each batch goes through the net as in training, so that every layer sees inputs that were normalised by the batch's
    own statistics; the mean and the unbiased variance of each layer's inputs (of each group, with `bn_group_size`) are
    averaged over the batches, all of which weigh the same.

    Args:
      model: the net.
      variables: its variables.
      batches: normalised training images, (batch, height, width, channels).

    Returns:
      `variables` with other `batch_stats`; without, for a net without batch norm, unchanged.

    Raises:
      UserError: without a batch.
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
        # From zero, the moving average has taken one step to the batch's own statistics.
        return jax.tree.map(lambda s: s / (1 - BatchNorm.momentum), mutated["batch_stats"])

    total, count = None, 0
    for number, images in enumerate(batches):
        found = statistics(dict(variables), images, jax.random.key(number))
        total, count = found if total is None else jax.tree.map(jnp.add, total, found), count + 1
    if total is None:
        raise UserError("batch-norm statistics need at least one batch of training images")
    return {**variables, "batch_stats": jax.tree.map(lambda s: s / count, total)}


def from_training_images(model: nn.Module, variables: Variables, pipeline: ResidentPipeline | StreamingPipeline,
                         mesh: Mesh, images: int, report: Report = silent) -> dict[str, Any]:  # fmt: skip
    """`recompute_statistics` on training images, augmented as in training: the first of the run's first epoch.

    Args:
      model, variables, pipeline, mesh: of the run.
      images: how many; whole batches of the training's size are taken, so many or a few more.
      report: called with (images taken, images to take).

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
        for step in range(count):
            inputs = pipeline.send(pipeline.train_inputs(step, 1), shared)
            yield make(pipeline.train, inputs, jax.random.fold_in(key, step))
            report((step + 1) * pipeline.batch_size, count * pipeline.batch_size)

    return recompute_statistics(model, variables, batches())
