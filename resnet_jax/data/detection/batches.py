"""Batches of images with boxes: which images, in which of two sizes, decoded by threads."""

import functools
import hashlib
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from resnet_jax.data.buckets import bucket_shapes
from resnet_jax.data.detection.annotations import AnnotatedImage
from resnet_jax.data.image_files import DecodeError, decode
from resnet_jax.data.imagenet.crops import batch_draws
from resnet_jax.data.imagenet.decode import resize
from resnet_jax.data.imagenet.loaders import GRAY, Loader, PendingBatch, Unreadable
from resnet_jax.data.imagenet.source import FileSource, RecordError
from resnet_jax.models.detection import LONGEST

#: Sizes of batches; each costs a compilation. Two hold wide photographs and tall ones.
MOST_BUCKETS = 2


class Batch(NamedTuple):
    """Holds images, and what they show, padded.

    Attributes:
      images: uint8 (n, height, width, 3); zero beyond `sizes`.
      sizes: int32 (n, 2), heights and widths without padding.
      scales: float32 (n, 2), by which heights and widths were multiplied.
      boxes: float32 (n, most, 4), in pixels of `images`.
      labels: int32 (n, most), -1 where there is none.
      ignored: bool (n, most), see `AnnotatedImage`.
      areas: float32 (n, most), in pixels of the file.
    """

    images: Any  # NumPy's arrays on the host, JAX's inside the jitted step
    sizes: Any
    scales: Any
    boxes: Any
    labels: Any
    ignored: Any
    areas: Any

    @classmethod
    def empty(cls, rows: int, shape: tuple[int, int], most: int) -> "Batch":
        """Returns a batch without images, to be filled."""
        return cls(
            np.zeros((rows, *shape, 3), np.uint8), np.zeros((rows, 2), np.int32), np.ones((rows, 2), np.float32),
            np.zeros((rows, most, 4), np.float32), np.full((rows, most), -1, np.int32), np.zeros((rows, most), bool),
            np.zeros((rows, most), np.float32),
        )  # fmt: skip


def resized_size(height: int, width: int, shorter_side: int) -> tuple[int, int]:
    """Returns (height, width) with the shorter side of that length, or less where the longer would exceed `LONGEST`."""
    scale = min(shorter_side / min(height, width), LONGEST * shorter_side / max(height, width))
    return max(1, round(height * scale)), max(1, round(width * scale))


class Bucket(NamedTuple):
    """Holds images of about one size: (height, width) that all of them fit, and their indices."""

    shape: tuple[int, int]
    indices: np.ndarray


def buckets(images: Sequence[AnnotatedImage], shorter_side: int) -> list[Bucket]:
    """Returns the images in groups that are padded to one size each, at most `MOST_BUCKETS` of them."""
    shapes = bucket_shapes(
        [resized_size(image.height, image.width, shorter_side) for image in images], MOST_BUCKETS
    )  # fmt: skip
    return [
        Bucket(shape, np.array([i for i, one in enumerate(shapes) if one == shape], np.int32))
        for shape in sorted(set(shapes))
    ]


def batch_of(seed: int, number: int, groups: Sequence[Bucket], batch_size: int) -> tuple[int, np.ndarray]:
    """Returns the bucket and the images, int32 (batch_size,), of one training batch, a function of (seed, number).

    An epoch has the batches of all buckets in random order. It has every image once, but for the last
    batch of a bucket, which is filled with images that came first.
    """
    counts = [-(-len(group.indices) // batch_size) for group in groups]
    epoch, place = divmod(number, sum(counts))
    order, shuffled = _epoch(seed, epoch, tuple(counts), tuple(len(group.indices) for group in groups))
    which, nth = order[place]
    rows = np.arange(nth * batch_size, (nth + 1) * batch_size) % len(groups[which].indices)
    return which, groups[which].indices[shuffled[which][rows]].astype(np.int32)


@functools.lru_cache(maxsize=4)
def _epoch(seed: int, epoch: int, counts: tuple[int, ...], sizes: tuple[int, ...]
           ) -> tuple[list[tuple[int, int]], list[np.ndarray]]:  # fmt: skip
    rng = np.random.Generator(np.random.Philox(key=[seed, epoch]))
    batches = [(which, nth) for which, count in enumerate(counts) for nth in range(count)]
    return [batches[i] for i in rng.permutation(len(batches))], [rng.permutation(size) for size in sizes]


class BoxLoader(Loader):
    """Loads batches of images with boxes by threads.

    An image that cannot be read is shown grey; in training without objects.

    Attributes:
      images: of the set.
      groups: see `buckets`.
      shorter_side: in pixels.
      most: boxes of an image, at most.
    """

    def __init__(self, split: str, images: Sequence[AnnotatedImage], shorter_side: int, most: int,
                 unreadable: Unreadable, workers: int = 0) -> None:  # fmt: skip
        """Starts the threads; 0: one for each core."""
        names, paths = [image.path.name for image in images], [image.path for image in images]
        super().__init__(FileSource(names, [0] * len(images), paths, None, 0), unreadable, workers)
        self.split, self.images, self.shorter_side, self.most = split, images, shorter_side, most
        self.groups = buckets(images, shorter_side)
        self._shape = functools.cache(self._padded_shape)

    def fingerprint(self) -> str:
        """Returns 12 hexadecimal digits that change with the images, their order or their boxes."""
        found = hashlib.sha256()
        for image in self.images:
            found.update(image.path.name.encode(errors="surrogateescape"))
            found.update(image.boxes.tobytes() + image.labels.tobytes() + image.ignored.tobytes())
        return found.hexdigest()[:12]

    def begin(self, which: int, indices: np.ndarray, mirrored: np.ndarray, shorter_side: int | None = None
              ) -> PendingBatch[Batch]:  # fmt: skip
        """Begins to load images of one bucket.

        Args:
          which: the bucket.
          indices: of the images.
          mirrored: which of them are flipped, bool (n,).
          shorter_side: in pixels, if it is not that of training.
        """
        side = shorter_side or self.shorter_side
        batch = Batch.empty(len(indices), self._shape(which, side), self.most)

        def fill(row: int) -> None:
            self._fill(batch, row, int(indices[row]), bool(mirrored[row]), side)

        return self._begin_rows(batch, len(indices), fill)

    def begin_training(self, seed: int, number: int, batch_size: int, rows: tuple[int, int], flip: bool
                       ) -> PendingBatch[Batch]:  # fmt: skip
        """Begins to load the `rows` (first, end) of a training batch by its number."""
        which, indices = batch_of(seed, number, self.groups, batch_size)
        mirrored = (batch_draws(seed, number, batch_size)[:, 0] < 0.5) & flip
        return self.begin(which, indices[slice(*rows)], mirrored[slice(*rows)])

    def _padded_shape(self, which: int, side: int) -> tuple[int, int]:
        """Returns the (height, width) that the images of a bucket are padded to, resized to a shorter side."""
        if side == self.shorter_side:
            return self.groups[which].shape
        images = (self.images[index] for index in self.groups[which].indices)
        heights, widths = zip(*(resized_size(image.height, image.width, side) for image in images), strict=True)
        return max(heights), max(widths)

    def _fill(self, batch: Batch, row: int, index: int, mirrored: bool, side: int) -> None:
        image = self.images[index]
        height, width = resized_size(image.height, image.width, side)
        batch.sizes[row] = height, width
        batch.scales[row] = height / image.height, width / image.width
        count = min(len(image.labels), self.most)
        try:
            pixels = resize(decode(self.source.load(index).data), height, width)
            self.grey.discard(index)
        except (RecordError, DecodeError) as error:
            self.grey.add(index)
            self.unreadable.add(self.split, image.path.name, error)
            pixels = np.full((height, width, 3), GRAY, np.uint8)
            count = count if self.split == "test" else 0
        chosen = np.sort(np.argsort(image.ignored, kind="stable")[:count])  # objects go ahead of what is ignored
        boxes = image.boxes[chosen] * batch.scales[row][[1, 0, 1, 0]]
        if mirrored:
            pixels = pixels[:, ::-1]
            boxes = np.stack([width - boxes[:, 2], boxes[:, 1], width - boxes[:, 0], boxes[:, 3]], axis=1)
        batch.images[row, :height, :width] = pixels
        for array, values in ((batch.boxes, boxes), (batch.labels, image.labels[chosen]),
                              (batch.ignored, image.ignored[chosen]), (batch.areas, image.areas[chosen])):  # fmt: skip
            array[row, :count] = values
