"""Batches of images, decoded by threads ahead of their use.

A training batch is a pure function of (seed, number); of test images each comes exactly once, readable or not.
"""

import os
import threading
import weakref
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, Generic, NamedTuple, TypeVar

import numpy as np

from resnet_jax.data.image_files import DecodeError, decode, image_size
from resnet_jax.data.imagenet.crops import Box, batch_draws, crop_box
from resnet_jax.data.imagenet.decode import crop_resize, decode_crop
from resnet_jax.data.imagenet.source import RecordError, Source
from resnet_jax.data.imagenet.test_crops import Crops, Group, ImageViews
from resnet_jax.data.jpeg import is_jpeg
from resnet_jax.data.sampling import batch_indices
from resnet_jax.errors import UserError

#: Images that a thread decodes per task: few, so that threads share a batch evenly; enough to make tasks cheap.
CHUNK = 8

#: Unreadable images in a row after which the disk is to blame, not the images.
MOST_REPLACED = 100

#: Unreadable images that are named one by one.
MOST_NAMED = 20

#: Grey level that stands for a test image that cannot be read.
GRAY = 128

#: Batches that are decoded besides the one that is waited for.
AHEAD = 3

BoxOf = Callable[[int, int], Box]
T = TypeVar("T")


def default_workers() -> int:
    """Returns the number of cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def load_crop(source: Source, index: int, box_of: BoxOf, size: int) -> tuple[np.ndarray, int]:
    """Loads one image, cropped to the box that `box_of(height, width)` gives: uint8 (size, size, 3), and its label.

    Raises:
      RecordError, DecodeError: if it cannot be read.
    """
    _, label, data = source.load(index)
    if is_jpeg(data):
        return decode_crop(data, box_of(*image_size(data)), size), label
    pixels = decode(data)  # of other formats the size is sure only then
    shape: tuple[int, int] = pixels.shape[:2]
    return crop_resize(pixels, box_of(*shape), shape, size), label


class Unreadable:
    """Collects the images that could not be read, each once; safe for threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._why: dict[tuple[str, str], str] = {}
        self._reported = 0

    def add(self, split: str, name: str, error: Exception) -> None:
        """Adds an image."""
        with self._lock:
            self._why.setdefault((split, name), str(error))

    def __len__(self) -> int:
        return len(self._why)

    def first(self, split: str) -> str:
        """Returns the sentence on the first image of a split; "another process says why" where there is none."""
        with self._lock:
            of_split = (f"{part} image {name} cannot be read: {why}" for (part, name), why in self._why.items()
                        if part == split)  # fmt: skip
            return next(of_split, "another process says why")

    def new_warnings(self) -> list[str]:
        """Returns a sentence for each image that was added since the last call, up to `MOST_NAMED`, and on the rest."""
        with self._lock:
            new = list(self._why.items())[self._reported :]
            self._reported += len(new)
        sentences = [f"{split} image {name} cannot be read: {why}" for (split, name), why in new[:MOST_NAMED]]
        more = len(new) - MOST_NAMED
        return [*sentences, *([f"{more:,} further images cannot be read"] if more > 0 else [])]


class PendingBatch(Generic[T]):
    """Holds arrays that threads are filling."""

    def __init__(self, arrays: T, futures: Sequence[Future]) -> None:
        self._arrays, self._futures = arrays, futures

    def result(self) -> T:
        """Waits for the threads and returns the arrays."""
        for future in self._futures:
            future.result()
        return self._arrays

    def cancel(self) -> None:
        """Cancels what has not begun."""
        for future in self._futures:
            future.cancel()


def one_ahead(begun: Iterator[T]) -> Iterator[T]:
    """Yields what an iterator begins, such as batches that are decoded, and begins the next ahead of each."""
    waiting = next(begun, None)
    while waiting is not None:
        following = next(begun, None)
        yield waiting
        waiting = following


class Loader:
    """Decodes images of one source by threads, which stop with the loader.

    Attributes:
      source: of the images.
      unreadable: collects the images that cannot be read.
      grey: indices of test images that could not be read when they were last loaded, and were shown grey.
    """

    def __init__(self, source: Source, unreadable: Unreadable, workers: int) -> None:
        """Starts the threads; 0: one for each core."""
        self.source, self.unreadable = source, unreadable
        self.grey: set[int] = set()
        self._pool = ThreadPoolExecutor(workers or default_workers(), "decode")
        weakref.finalize(self, self._pool.shutdown, wait=False, cancel_futures=True)

    def _begin_rows(self, arrays: T, rows: int, fill: Callable[[int], None]) -> PendingBatch[T]:
        """Has the threads call `fill` for each row of the arrays, and gives these at once."""

        def fill_chunk(start: int) -> None:
            for row in range(start, min(start + CHUNK, rows)):
                fill(row)

        return PendingBatch(arrays, [self._pool.submit(fill_chunk, start) for start in range(0, rows, CHUNK)])


class TrainLoader(Loader):
    """Loads training batches of one source by number, or the rows of them that this process feeds.

    Attributes:
      unreadable: images that were replaced by the next one that can be read; every process and every run does the same.
    """

    def __init__(self, source: Source, *, seed: int, batch_size: int, rows: tuple[int, int], size: int, crop: str,
                 sides: tuple[int, int], workers: int = 0, repeats: int = 1) -> None:  # fmt: skip
        """Starts the threads.

        Args:
          source: of the images.
          seed: of their order and crops.
          batch_size: of the whole batch.
          rows: (first, end) of the rows that this process feeds.
          size: side in pixels.
          crop, sides: see `crops.crop_box`.
          workers: threads; 0: one for each core.
          repeats: see `sampling.batch_indices`.
        """
        super().__init__(source, Unreadable(), workers)
        self.seed, self.batch_size, self.rows, self.size = seed, batch_size, rows, size
        self.crop, self.sides, self.repeats = crop, sides, repeats
        self._pending: dict[tuple[int, int], PendingBatch[tuple[np.ndarray, ...]]] = {}  # by number and size

    def batches(
        self, numbers: Sequence[int], next_numbers: Sequence[int] = (), sizes: Sequence[int] = ()
    ) -> tuple[np.ndarray, ...]:
        """Returns batches by number, and begins the next ones.

        Args:
          numbers: of the batches.
          next_numbers: of those to begin.
          sizes: sides in pixels of all these batches, `size` by default; those of `numbers` are equal.

        Returns:
          uint8 images (count, rows, size, size, 3) and int32 labels (count, rows).

        Raises:
          UserError: if too many images in a row cannot be read.
        """
        both = [*numbers, *next_numbers]
        wanted = list(zip(both, sizes or [self.size] * len(both), strict=True))
        for key in self._pending.keys() - set(wanted):  # after a step back, or the end
            self._pending.pop(key).cancel()
        for key in wanted:
            if key not in self._pending:
                self._pending[key] = self._begin(*key)
        found = [self._pending.pop(key).result() for key in wanted[: len(numbers)]]
        if len(found) == 1:  # without a copy
            return tuple(array[None] for array in found[0])
        return tuple(np.stack(arrays) for arrays in zip(*found, strict=True))

    def _begin(self, number: int, size: int) -> PendingBatch[tuple[np.ndarray, ...]]:
        first, last = self.rows
        indices = batch_indices(self.seed, number, self.batch_size, len(self.source), self.repeats)[first:last]
        draws = batch_draws(self.seed, number, self.batch_size)[first:last]
        # New arrays for each batch: JAX may still read those that it was given.
        arrays = self.empty(len(indices), size)

        def fill(row: int) -> None:
            for array, value in zip(arrays, self._example(int(indices[row]), draws[row], size), strict=True):
                array[row] = value

        return self._begin_rows(arrays, len(indices), fill)

    def empty(self, rows: int, size: int) -> tuple[np.ndarray, ...]:
        """Returns new arrays for what `load` gives of so many examples."""
        return np.empty((rows, size, size, 3), np.uint8), np.empty(rows, np.int32)

    def load(self, index: int, draws: np.ndarray, size: int) -> tuple[Any, ...]:
        """Loads one example of `size` pixels, cropped as its random numbers say: here pixels and label.

        Raises:
          RecordError, DecodeError: if it cannot be read.
        """

        def box_of(height: int, width: int) -> Box:
            return crop_box(self.crop, draws, height, width, size, self.sides)

        return load_crop(self.source, index, box_of, size)

    def _example(self, index: int, draws: np.ndarray, size: int) -> tuple[Any, ...]:
        for further in range(min(MOST_REPLACED, len(self.source))):
            place = (index + further) % len(self.source)
            try:
                return self.load(place, draws, size)
            except (RecordError, DecodeError) as error:
                self.unreadable.add("training", self.source.name(place), error)
        raise UserError(
            f"{further + 1} images in a row, from {self.source.name(index)} on, cannot be read: "
            f"{self.unreadable.first('training')}"
        )


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


class TestLoader(Loader):
    """Loads images of one source by index.

    An image that cannot be read is shown grey: it must count, and must not stop the test. Its label is that of its
    record, or 0 where the record cannot be read either.

    Attributes:
      views: how images are shown while a net is trained.
    """

    __test__ = False  # pytest

    def __init__(self, source: Source, *, views: Crops, unreadable: Unreadable, workers: int = 0) -> None:
        """Starts the threads.

        Args:
          source: of the images.
          views: how images are shown while a net is trained.
          unreadable: collects the images that cannot be read.
          workers: threads; 0: one for each core.
        """
        super().__init__(source, unreadable, workers)
        self.views = views

    def begin(
        self, indices: np.ndarray, views: ImageViews | None = None, group: Group = (1, 1)
    ) -> PendingBatch[ViewBatch]:
        """Begins to decode and crop images of one group; without `views`, as while the net is trained."""
        chosen = views or self.views
        count = len(indices)
        arrays = tuple(np.empty((count, *shape, 3), np.uint8) for shape in chosen.shapes(group))
        batch = ViewBatch(arrays, np.zeros(count, np.int32), np.zeros(count, bool))

        def fill(row: int) -> None:
            index = int(indices[row])
            try:
                _, batch.labels[row], data = self.source.load(index)
                parts = chosen.views(decode(data), group)
                self.grey.discard(index)
            except (RecordError, DecodeError) as error:
                self.unreadable.add("test", self.source.name(index), error)
                self.grey.add(index)
                batch.unreadable[row] = True
                parts = (np.full(3, GRAY, np.uint8),) * len(arrays)
            for array, part in zip(arrays, parts, strict=True):
                array[row] = part

        return self._begin_rows(batch, count, fill)

    def groups(self, indices: Sequence[int], views: ImageViews) -> np.ndarray:
        """Returns the group of each image by its header, int32 (n, 2); that of a square where it cannot be read."""

        def group(index: int) -> Group:
            try:
                return views.group(*image_size(self.source.load(index).data))
            except (RecordError, DecodeError):  # reported when the image is to be shown
                return views.group(1, 1)

        return np.array(list(self._pool.map(group, indices, chunksize=CHUNK)), np.int32).reshape(-1, 2)
