"""Few shapes for images of many sizes: each shape compiles a program, and padding costs time."""

from collections.abc import Sequence
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.sharding import Mesh

#: Shapes that a set's images are padded to.
MOST = 3

#: Where images have more sizes than that, these are rounded up to multiples of so many pixels.
STEP = 16

#: Pixels of an evaluation batch on each device: 16 images of 500x500.
PIXELS = 2**22

#: (height, width) in pixels.
Shape = tuple[int, int]


class PaddedBatch(NamedTuple):
    """Holds the images that are evaluated together.

    Attributes:
      shape: that each is padded to, at the bottom and on the right.
      indices: of the images, int32 (n,), padded with the first.
      mask: float32 (n,), 1 for each image and 0 for those that only fill the batch.
    """

    shape: Shape
    indices: np.ndarray
    mask: np.ndarray


def bucket_shapes(sizes: Sequence[Shape], most: int = MOST) -> list[Shape]:
    """Returns the shape that each image is padded to: at most `most` different ones, with little padding.

    From each size on its own, the two groups are joined whose joining pads the fewest pixels, until few are left.
    """
    if len(set(sizes)) > most:
        sizes = [(-(-height // STEP) * STEP, -(-width // STEP) * STEP) for height, width in sizes]
    unique, counts = np.unique(np.array(sizes, np.int64).reshape(-1, 2), axis=0, return_counts=True)
    members = [[i] for i in range(len(unique))]
    shapes = unique.copy()
    while len(shapes) > most:
        joined = np.maximum(shapes[:, None], shapes[None]).prod(axis=-1)
        images = counts[:, None] + counts[None]
        pixels = shapes.prod(axis=-1) * counts
        cost = (joined * images - pixels[:, None] - pixels[None]).astype(np.float64)
        np.fill_diagonal(cost, np.inf)
        i, j = sorted(int(k) for k in np.unravel_index(np.argmin(cost), cost.shape))
        shapes[i], counts[i] = np.maximum(shapes[i], shapes[j]), counts[i] + counts[j]
        members[i] += members.pop(j)
        shapes, counts = np.delete(shapes, j, axis=0), np.delete(counts, j)
    found = {
        (int(unique[k][0]), int(unique[k][1])): (int(shape[0]), int(shape[1]))
        for group, shape in zip(members, shapes, strict=True)
        for k in group
    }
    return [found[height, width] for height, width in sizes]


def padded_batches(sizes: Sequence[Shape], mesh: Mesh, pixels: int = PIXELS) -> list[PaddedBatch]:
    """Divides images into batches of one shape, in order; each has mask 1 once. The batches of a shape are of one size.

    Args:
      sizes: (height, width) of the images.
      mesh: devices that share a batch.
      pixels: of a batch on each device.
    """
    shapes = bucket_shapes(sizes)
    found = []
    for shape in sorted(set(shapes)):
        of_shape = np.array([i for i, one in enumerate(shapes) if one == shape], np.int32)
        most = max(1, pixels // (shape[0] * shape[1])) * mesh.size
        size = -(-len(of_shape) // -(-len(of_shape) // most))
        size = -(-size // mesh.size) * mesh.size
        for start in range(0, len(of_shape), size):
            part = of_shape[start : start + size]
            filled = np.concatenate([part, np.repeat(of_shape[:1], size - len(part))])
            found.append(PaddedBatch(shape, filled, (np.arange(size) < len(part)).astype(np.float32)))
    return found


def without_padding(images: Array, sizes: Array) -> Array:
    """Returns images (n, height, width, channels) with zeros beyond each one's size (height, width), (n, 2)."""
    rows, columns = (jnp.arange(side) for side in images.shape[1:3])
    inside = (rows < sizes[:, :1])[:, :, None] & (columns < sizes[:, 1:])[:, None, :]
    return jnp.where(inside[..., None], images, 0)
