"""Test images, decoded by threads ahead of their use: each exactly once, readable or not."""

import weakref
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import numpy as np

from resnet_jax.data.imagenet.decode import DecodeError, decode, image_size
from resnet_jax.data.imagenet.source import RecordError, Source
from resnet_jax.data.imagenet.test_crops import Crops, Group, ImageViews
from resnet_jax.data.imagenet.train_loader import CHUNK, PendingBatch, Unreadable, default_workers

#: Grey level that stands for an image that cannot be read.
GRAY = 128


class ViewBatch(NamedTuple):
    """Holds views of images.

    Attributes:
      views: uint8 (n, height, width, 3) each.
      labels: int32 (n,).
      unreadable: bool (n,).
    """

    views: tuple[np.ndarray, ...]
    labels: np.ndarray
    unreadable: np.ndarray


class TestLoader:
    """Loads images of one source by index.

    An image that cannot be read is shown grey: it must count, and must not stop the test. Its label is that of its
    record, or 0 where the record cannot be read either.
    """

    __test__ = False  # pytest

    def __init__(self, source: Source, *, views: Crops, unreadable: Unreadable, workers: int = 0) -> None:
        """Starts threads, which stop with the loader.

        Args:
          source: of the images.
          views: how images are shown while a net is trained.
          unreadable: collects the images that cannot be read.
          workers: threads; 0: one for each core.
        """
        self.source, self.views, self.unreadable = source, views, unreadable
        self._pool = ThreadPoolExecutor(workers or default_workers(), "decode_test")
        weakref.finalize(self, self._pool.shutdown, wait=False, cancel_futures=True)

    def begin(
        self, indices: np.ndarray, views: ImageViews | None = None, group: Group = (1, 1)
    ) -> PendingBatch[ViewBatch]:
        """Begins to decode and crop images of one group; without `views`, as while the net is trained."""
        chosen = views or self.views
        count = len(indices)
        arrays = tuple(np.empty((count, *shape, 3), np.uint8) for shape in chosen.shapes(group))
        batch = ViewBatch(arrays, np.zeros(count, np.int32), np.zeros(count, bool))

        def fill(start: int) -> None:
            for row in range(start, min(start + CHUNK, count)):
                index = int(indices[row])
                try:
                    _, batch.labels[row], data = self.source.load(index)
                    parts = chosen.views(decode(data), group)
                except (RecordError, DecodeError) as error:
                    self.unreadable.add("test", self.source.name(index), error)
                    batch.unreadable[row] = True
                    parts = (np.full(3, GRAY, np.uint8),) * len(arrays)
                for array, part in zip(arrays, parts, strict=True):
                    array[row] = part

        return PendingBatch(batch, [self._pool.submit(fill, start) for start in range(0, count, CHUNK)])

    def groups(self, indices: Sequence[int], views: ImageViews) -> np.ndarray:
        """Returns the group of each image by its header, int32 (n, 2); that of a square where it cannot be read."""

        def group(index: int) -> Group:
            try:
                return views.group(*image_size(self.source.load(index).data))
            except (RecordError, DecodeError):  # reported when the image is to be shown
                return views.group(1, 1)

        return np.array(list(self._pool.map(group, indices, chunksize=CHUNK)), np.int32).reshape(-1, 2)
