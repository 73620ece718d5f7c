"""Scores of images: the softmax of a net's logits, averaged over views and over nets."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from flax import linen as nn
from jax import Array
from jax.sharding import Mesh

from resnet_jax.data.placement import place
from resnet_jax.data.resident import ResidentPipeline
from resnet_jax.errors import UserError
from resnet_jax.evaluation.protocols import Protocol
from resnet_jax.training.distributed import batch_sharded, replicated

Variables = Mapping[str, Any]

#: Called with (done, total) as the work proceeds; of a test they are images.
Report = Callable[[int, int], None]

#: (variables, normalised images of one view) -> logits.
Forward = Callable[[Variables, Array], Array]


class Scores(NamedTuple):
    """Scores float64 (n, classes), labels int32 (n,) and whether it could not be read, bool (n,), of each image."""

    scores: np.ndarray
    labels: np.ndarray
    unreadable: np.ndarray


def silent(done: int, total: int) -> None:
    """Reports to nobody."""


def softmax(logits: np.ndarray) -> np.ndarray:
    """Returns probabilities (n, classes), float64 to keep the order of float32 logits; NaN if one is infinite."""
    with np.errstate(invalid="ignore"):
        powers = np.exp(np.float64(logits) - np.max(logits, axis=-1, keepdims=True))
        return powers / powers.sum(axis=-1, keepdims=True)


def jitted_forward(model: nn.Module, mesh: Mesh) -> Forward:
    """Jits the net in testing mode, once for each shape; logits (batch, classes) are replicated."""

    def forward(variables: Variables, images: Array) -> Any:
        return model.apply(variables, images, train=False)

    everywhere = replicated(mesh)
    return jax.jit(forward, in_shardings=(everywhere, batch_sharded(mesh)), out_shardings=everywhere)


def scores(forward: Forward, variables: Variables, views: Iterable[Array]) -> np.ndarray:
    """Averages the softmax of the logits of several views, each (batch, height, width, channels) of any size.

    Returns:
      float64, (batch, classes), each row with the sum 1.
    """
    return np.mean([softmax(np.asarray(forward(variables, view))) for view in views], axis=0)


def ensemble(members: Sequence[np.ndarray]) -> np.ndarray:
    """Averages the scores (n, classes) of several nets for the same images.

    Raises:
      UserError: if they are not of the same images or classes.
    """
    shapes = {one.shape for one in members}
    if len(shapes) != 1:
        raise UserError(f"nets of an ensemble need the same images and classes; their scores are {sorted(shapes)}")
    return np.mean(members, axis=0)


def score_test(protocol: Protocol, forward: Forward, variables: Variables, pipeline: ResidentPipeline,
               mesh: Mesh, report: Report = silent) -> Scores:  # fmt: skip
    """Scores the test set, each image once and in order."""
    everywhere, shared = replicated(mesh), batch_sharded(mesh)

    # A separate program: inside the net's, each view would compile the net again.
    @jax.jit
    def batch(resident: Any, indices: Array) -> tuple[tuple[Array, ...], Array]:
        images, labels = pipeline.eval_batch(resident, indices)
        views = jax.tree.map(lambda v: jax.lax.with_sharding_constraint(v, shared), protocol.views(images))
        return views, jax.lax.with_sharding_constraint(labels, everywhere)

    found, labels = [], []
    for indices, mask in pipeline.test_inputs():
        views, those = batch(pipeline.test, place(indices, shared))
        found.append(scores(forward, variables, views)[mask > 0])
        labels.append(np.asarray(those)[mask > 0])
        report(sum(map(len, labels)), pipeline.test_size)
    every_score, every_label = np.concatenate(found), np.concatenate(labels)
    assert len(every_label) == pipeline.test_size, (len(every_label), pipeline.test_size)
    return Scores(every_score, every_label, np.zeros(len(every_label), bool))
