"""Scores of images of many sizes: views of one shape go through the net together."""

from collections.abc import Iterable

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from resnet_jax.evaluation.protocols import Protocol
from resnet_jax.evaluation.scoring import Forward, Variables, scores

#: Batches' worth of images that may wait for others of their shape.
WAITING = 4

Shapes = tuple[tuple[int, ...], ...]


def score_photographs(protocol: Protocol, forward: Forward, variables: Variables, images: Iterable[np.ndarray],
                      mean: np.ndarray, std: np.ndarray, batch: int = 32) -> np.ndarray:  # fmt: skip
    """Scores of images of any sizes, float64, (n, classes), in the images' order.

    Crops all have one shape and go `batch` at a time. Whole images go with those of the same proportions, and each new
    shape is compiled; batches that do not fill are filled with zeros, which count for nothing.

    Args:
      protocol, forward, variables: see `scoring`.
      images: uint8, (height, width, channels).
      mean, std: of pixels in [0, 1]. A mean image is applied by its channels' means: it fits no other size.
      batch: images in a batch, a multiple of the devices.

    Raises:
      UserError: if an image is too small for the protocol's crops.
    """
    centre = np.float32(mean).reshape(-1, mean.shape[-1]).mean(axis=0)
    found: dict[int, np.ndarray] = {}
    waiting: dict[Shapes, list[tuple[int, tuple[Array, ...]]]] = {}

    def flush(shapes: Shapes) -> None:
        members = waiting.pop(shapes)
        stacked = (jnp.concatenate(views) for views in zip(*(views for _, views in members), strict=True))
        missing = batch - len(members)
        filled = (jnp.pad(view, ((0, missing), (0, 0), (0, 0), (0, 0))) for view in stacked)
        found.update(zip((index for index, _ in members), scores(forward, variables, filled), strict=False))

    for index, image in enumerate(images):
        normalised = (image[None].astype(np.float32) / 255 - centre) / np.float32(std)
        views = protocol.views(jax.device_put(normalised))
        shapes = tuple(view.shape for view in views)
        waiting.setdefault(shapes, []).append((index, views))
        if len(waiting[shapes]) == batch:
            flush(shapes)
        elif sum(map(len, waiting.values())) >= WAITING * batch:
            flush(max(waiting, key=lambda one: len(waiting[one])))
    for shapes in list(waiting):
        flush(shapes)
    return np.stack([found[index] for index in range(len(found))])
