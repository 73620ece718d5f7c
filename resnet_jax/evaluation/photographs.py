"""Scores of test images of many sizes: threads crop them on the host while the devices score the previous ones."""

from collections.abc import Iterator
from typing import NamedTuple

import jax
import numpy as np
from jax import Array
from jax.experimental import multihost_utils
from jax.sharding import Mesh

from resnet_jax.data.augment import normalize
from resnet_jax.data.imagenet.loaders import PendingBatch, TestLoader, ViewBatch
from resnet_jax.data.imagenet.test_crops import Group, ImageViews
from resnet_jax.data.placement import place_rows, rows_here
from resnet_jax.data.streaming import Normalizer, StreamingPipeline
from resnet_jax.errors import UserError
from resnet_jax.evaluation.protocols import PhotographProtocol
from resnet_jax.evaluation.scoring import Forward, Report, Scores, Variables, silent, softmax
from resnet_jax.training.distributed import batch_sharded, replicated

#: Pixels of one view in a batch, on each device: 128 crops of 224, or 11 images of 640x853.
PIXELS = 128 * 224 * 224

#: Batches that are decoded besides the one that is scored; they take memory on the host.
AHEAD = 2


class Batch(NamedTuple):
    """Images of one group that go through the net together.

    Attributes:
      group: see `test_crops.ImageViews`.
      indices: of images, int32 (n,), padded with the first of the group.
      images: how many there are, without padding.
    """

    group: Group
    indices: np.ndarray
    images: int


def score_photographs(protocol: PhotographProtocol, forward: Forward, variables: Variables,
                      pipeline: StreamingPipeline, mesh: Mesh, report: Report = silent) -> Scores:  # fmt: skip
    """Scores the test set, each image once and in order; several processes call this together.

    Each process decodes its rows of every batch, and all get all scores.

    Raises:
      UserError: if no image can be read.
    """
    loader, everywhere, shared = pipeline.test_loader, replicated(mesh), batch_sharded(mesh)
    gather = jax.jit(lambda x: x, out_shardings=everywhere)
    total, done = len(loader.source), 0
    found: Scores | None = None

    # A separate program: inside the net's, mirrored views would compile the net again.
    @jax.jit
    def views_of(normalizer: Normalizer, images: Array) -> tuple[Array, ...]:
        images = normalize(images, normalizer["mean"], normalizer["std"])
        views = (images, images[:, :, ::-1]) if protocol.mirrored else (images,)
        return jax.lax.with_sharding_constraint(views, (shared,) * len(views))

    def begin(views: tuple[np.ndarray, ...], labels: np.ndarray) -> tuple[list[Array], Array]:
        """Starts the devices and returns at once, so that the host can turn to the next batch."""
        logits = [
            forward(variables, view) for one in views for view in views_of(pipeline.test, place_rows(one, shared))
        ]
        return logits, gather(place_rows(labels, shared))

    def finish(batch: Batch, logits: list[Array], labels: Array) -> None:
        nonlocal found, done
        means = np.mean([softmax(np.asarray(one)) for one in logits], axis=0)
        if found is None:
            empty = np.full((total, means.shape[1]), np.nan)
            found = Scores(empty, np.zeros(total, np.int32), np.ones(total, bool))
        indices = batch.indices[: batch.images]
        found.scores[indices] = means[: batch.images]
        found.labels[indices], found.unreadable[indices] = np.asarray(labels)[: batch.images].T
        done += batch.images
        report(done, total)

    waiting: tuple[Batch, list[Array], Array] | None = None
    for batch, decoded in _decoded(batches_of(loader, protocol.views, mesh), loader, protocol.views, mesh):
        begun = begin(decoded.views, np.stack([decoded.labels, decoded.unreadable], axis=1).astype(np.int32))
        if waiting is not None:
            finish(*waiting)
        waiting = (batch, *begun)
    if waiting is not None:
        finish(*waiting)
    assert found is not None and done == total, (done, total)
    if found.unreadable.all():
        raise UserError(f"none of the {done:,} test images can be read: {loader.unreadable.first('test')}")
    return found


def batches_of(loader: TestLoader, views: ImageViews, mesh: Mesh) -> list[Batch]:
    """Divides the test set into batches of one group, in order; the same in every process.

    The batches of a group have one size, so that each of its shapes is compiled once.
    """
    count = len(loader.source)
    groups = _all_groups(loader, views) if views.by_size else np.full((count, 2), views.group(1, 1), np.int32)
    found = []
    for row in np.unique(groups, axis=0):
        group = (int(row[0]), int(row[1]))
        members = np.flatnonzero((groups == row).all(axis=1)).astype(np.int32)
        most = max(1, PIXELS // max(height * width for height, width in views.shapes(group))) * mesh.size
        size = -(-len(members) // -(-len(members) // most))
        size = -(-size // mesh.size) * mesh.size
        for start in range(0, len(members), size):
            part = members[start : start + size]
            padded = np.concatenate([part, np.repeat(members[:1], size - len(part))])
            found.append(Batch(group, padded, len(part)))
    return found


def _all_groups(loader: TestLoader, views: ImageViews) -> np.ndarray:
    """Returns the group of every image, (n, 2); each process reads the headers of its share."""
    count, processes = len(loader.source), jax.process_count()
    share = -(-count // processes)
    first = jax.process_index() * share
    mine = np.zeros((share, 2), np.int32)
    here = range(min(first, count), min(first + share, count))
    mine[: len(here)] = loader.groups(here, views)
    return mine if processes == 1 else multihost_utils.process_allgather(mine, tiled=True)[:count]


def _decoded(
    batches: list[Batch], loader: TestLoader, views: ImageViews, mesh: Mesh
) -> Iterator[tuple[Batch, ViewBatch]]:
    """Yields each batch with this process's rows of it, while the next ones are decoded."""
    pending: list[PendingBatch[ViewBatch]] = []
    for number, batch in enumerate(batches):
        for following in batches[number + len(pending) : number + 1 + AHEAD]:
            first, last = rows_here(mesh, len(following.indices))
            pending.append(loader.begin(following.indices[first:last], views, following.group))
        yield batch, pending.pop(0).result()
