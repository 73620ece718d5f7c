"""Scores of test images of many sizes: cut on the host, by threads, while the devices score those before."""

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jax import Array
from jax.experimental import multihost_utils
from jax.sharding import Mesh

from resnet_jax.data.augment import normalize
from resnet_jax.data.imagenet.test_crops import Cut, Group
from resnet_jax.data.imagenet.test_loader import Pending, Shown, TestLoader
from resnet_jax.data.placement import place_rows, rows_here
from resnet_jax.data.streaming import StreamingPipeline
from resnet_jax.errors import UserError
from resnet_jax.evaluation.protocols import PhotographProtocol
from resnet_jax.evaluation.scoring import Report, Variables, silent, softmax
from resnet_jax.training.mesh import batch_sharded, replicated

#: Pixels of one view in a batch, on each device: 128 crops of 224, or 11 images of 640x853.
PIXELS = 128 * 224 * 224

#: Batches that are being decoded besides the one that is scored: with those, what the host holds at once.
AHEAD = 2

#: (variables, normalisation, uint8 images of one view, whether mirrored) -> logits.
PhotographForward = Callable[[Variables, Any, Array, bool], Array]


class Batch(NamedTuple):
    """Images of one group.

    Attributes:
      group: see `cuts.Cut`.
      indices: of images, int32 (n,); places that are left over hold the first again.
      images: how many there are, without those.
    """

    group: Group
    indices: np.ndarray
    images: int


class Scored(NamedTuple):
    """Scores float64 (n, classes), labels int32 (n,) and whether it could not be read, bool (n,), of each image."""

    scores: np.ndarray
    labels: np.ndarray
    unreadable: np.ndarray


def jitted_forward(model: nn.Module, mesh: Mesh) -> PhotographForward:
    """The net in testing mode on uint8 images, compiled once for each shape; logits are whole on every device."""

    def forward(variables: Variables, normalizer: Any, images: Array, mirrored: Array) -> Any:
        # Chosen while it runs: a program for each would double the compilations.
        images = jnp.where(mirrored, images[:, :, ::-1], images)
        return model.apply(variables, normalize(images, normalizer["mean"], normalizer["std"]), train=False)

    everywhere = replicated(mesh)
    shardings = (everywhere, everywhere, batch_sharded(mesh), None)
    return jax.jit(forward, in_shardings=shardings, out_shardings=everywhere)


def score_photographs(protocol: PhotographProtocol, forward: PhotographForward, variables: Variables,
                      pipeline: StreamingPipeline, mesh: Mesh, report: Report = silent) -> Scored:  # fmt: skip
    """Scores of the test set, each image once and in its order; several processes call this together.

    Each process decodes its rows of every batch, and all get all scores.

    Args:
      protocol: how images are shown.
      forward, variables: of the net.
      pipeline: the run's data.
      mesh: all devices.
      report: called with (images done, images in all).

    Raises:
      UserError: if no image can be read.
    """
    loader, everywhere = pipeline.test_loader, replicated(mesh)
    gather = jax.jit(lambda x: x, out_shardings=everywhere)
    found: Scored | None = None
    done = 0

    def scored(views: tuple[np.ndarray, ...], facts: np.ndarray) -> tuple[list[Array], Array]:
        """Begins; the devices go on while the host turns to what is next."""
        both = (False, True) if protocol.mirrored else (False,)
        logits = [
            forward(variables, pipeline.test, sent, mirrored)
            for sent in (place_rows(view, batch_sharded(mesh)) for view in views)
            for mirrored in both
        ]
        return logits, gather(place_rows(facts, batch_sharded(mesh)))

    def finish(batch: Batch, logits: list[Array], facts: Array) -> None:
        nonlocal found, done
        means = np.mean([softmax(np.asarray(one)) for one in logits], axis=0)
        if found is None:
            total, classes = len(loader.source), means.shape[1]
            found = Scored(np.full((total, classes), np.nan), np.zeros(total, np.int32), np.ones(total, bool))
        places = batch.indices[: batch.images]
        found.scores[places] = means[: batch.images]
        found.labels[places], found.unreadable[places] = np.asarray(facts)[: batch.images].T
        done += batch.images
        report(done, len(loader.source))

    waiting: tuple[Batch, list[Array], Array] | None = None
    for batch, shown in _decoded(batches_of(loader, protocol.cut, mesh), loader, protocol.cut, mesh):
        begun = scored(shown.views, np.stack([shown.labels, shown.unreadable], axis=1).astype(np.int32))
        if waiting is not None:
            finish(*waiting)
        waiting = (batch, *begun)
    if waiting is not None:
        finish(*waiting)
    assert found is not None and done == len(loader.source), (done, len(loader.source))
    if found.unreadable.all():
        raise UserError(f"none of the {done:,} test images can be read: {(loader.unreadable.news() or ['?'])[-1]}")
    return found


def batches_of(loader: TestLoader, cut: Cut, mesh: Mesh) -> list[Batch]:
    """Which images go through the net together: those of one group, in their order; the same in every process.

    The batches of a group have one size, so that each of its shapes is compiled once.
    """
    count = len(loader.source)
    groups = _all_groups(loader, cut) if cut.by_size else np.full((count, 2), cut.group(1, 1), np.int32)
    found = []
    for row in np.unique(groups, axis=0):
        group = (int(row[0]), int(row[1]))
        members = np.flatnonzero((groups == row).all(axis=1)).astype(np.int32)
        most = max(1, PIXELS // max(height * width for height, width in cut.shapes(group))) * mesh.size
        number = -(-len(members) // most)
        size = -(-len(members) // number)
        size = -(-size // mesh.size) * mesh.size
        for start in range(0, len(members), size):
            part = members[start : start + size]
            filled = np.concatenate([part, np.repeat(members[:1], size - len(part))])
            found.append(Batch(group, filled, len(part)))
    return found


def _all_groups(loader: TestLoader, cut: Cut) -> np.ndarray:
    """The group of every image, (n, 2); each process reads the headers of its share."""
    count, processes = len(loader.source), jax.process_count()
    share = -(-count // processes)
    first = jax.process_index() * share
    mine = np.zeros((share, 2), np.int32)
    here = range(min(first, count), min(first + share, count))
    mine[: len(here)] = loader.groups(here, cut)
    return mine if processes == 1 else multihost_utils.process_allgather(mine, tiled=True)[:count]


def _decoded(batches: list[Batch], loader: TestLoader, cut: Cut, mesh: Mesh) -> Iterator[tuple[Batch, Shown]]:
    """Each batch with this process's rows of it, the next ones under way."""
    pending: list[Pending] = []
    for number, batch in enumerate(batches):
        for following in batches[number + len(pending) : number + 1 + AHEAD]:
            first, last = rows_here(mesh, len(following.indices))
            pending.append(loader.begin(following.indices[first:last], cut, following.group))
        yield batch, pending.pop(0).result()
