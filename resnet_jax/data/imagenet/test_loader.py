"""Test images decoded by threads ahead of their use: whole, every one once, whatever state it is in."""

import weakref
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import NamedTuple

import numpy as np

from resnet_jax.data.imagenet.decode import DecodeError, decode, image_size
from resnet_jax.data.imagenet.source import RecordError, Source
from resnet_jax.data.imagenet.test_crops import Crops, Cut, Group
from resnet_jax.data.imagenet.train_loader import CHUNK, Unreadable, default_workers

#: What an image that cannot be read is shown as.
GRAY = 128


class Shown(NamedTuple):
    """Images as they are shown.

    Attributes:
      views: uint8 (n, height, width, 3) each.
      labels: int32 (n,).
      unreadable: bool (n,).
    """

    views: tuple[np.ndarray, ...]
    labels: np.ndarray
    unreadable: np.ndarray


class Pending:
    """Images under way: arrays, and the threads' promises that they are filled."""

    def __init__(self, shown: Shown, futures: Sequence[Future]) -> None:
        self._shown, self._futures = shown, futures

    def result(self) -> Shown:
        """Waits."""
        for future in self._futures:
            future.result()
        return self._shown


class TestLoader:
    """Images of one source by their places, shown one way or another.

    One that cannot be read is shown grey: it must be counted, and not stop anything. Its label is that of its record;
    where not even that can be read, 0.
    """

    __test__ = False  # pytest

    def __init__(self, source: Source, *, cut: Crops, unreadable: Unreadable, workers: int = 0) -> None:
        """Starts threads, which stop with the loader.

        Args:
          source: where images are.
          cut: how they are shown while a net is trained.
          unreadable: what is told of those that cannot be read.
          workers: threads; 0: one for each core.
        """
        self.source, self.cut, self.unreadable = source, cut, unreadable
        self._pool = ThreadPoolExecutor(workers or default_workers(), "decode_test")
        weakref.finalize(self, self._pool.shutdown, wait=False, cancel_futures=True)

    def begin(self, indices: np.ndarray, cut: Cut | None = None, group: Group = (1, 1)) -> Pending:
        """Begins to decode and cut images, all of them of one group.

        Args:
          indices: their places.
          cut: how they are shown; unset: as while the net is trained.
          group: theirs.
        """
        chosen = cut or self.cut
        count = len(indices)
        views = tuple(np.empty((count, *shape, 3), np.uint8) for shape in chosen.shapes(group))
        shown = Shown(views, np.zeros(count, np.int32), np.zeros(count, bool))

        def fill(start: int) -> None:
            for row in range(start, min(start + CHUNK, count)):
                place = int(indices[row])
                try:
                    _, shown.labels[row], data = self.source.load(place)
                    parts = chosen.views(decode(data), group)
                except (RecordError, DecodeError) as error:
                    self.unreadable.add("test", self.source.name(place), error)
                    shown.unreadable[row] = True
                    parts = (np.full(3, GRAY, np.uint8),) * len(views)
                for array, part in zip(views, parts, strict=True):
                    array[row] = part

        return Pending(shown, [self._pool.submit(fill, start) for start in range(0, count, CHUNK)])

    def groups(self, indices: Sequence[int], cut: Cut) -> np.ndarray:
        """The group of each image by the size in its header, int32 (n, 2); that of a square where there is none."""

        def group(index: int) -> Group:
            try:
                return cut.group(*image_size(self.source.load(index).data))
            except (RecordError, DecodeError):  # told when it is to be shown
                return cut.group(1, 1)

        found = list(self._pool.map(group, indices, chunksize=CHUNK))
        return np.array(found, np.int32).reshape(-1, 2)
