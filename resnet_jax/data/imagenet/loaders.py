"""Training batches, decoded by threads ahead of their use: each is a pure function of (seed, number)."""

import os
import threading
import weakref
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Generic, TypeVar

import numpy as np

from resnet_jax.data.imagenet.crops import Box, batch_draws, crop_box
from resnet_jax.data.imagenet.decode import DecodeError, decode_crop, image_size
from resnet_jax.data.imagenet.source import RecordError, Source
from resnet_jax.data.sampling import batch_indices
from resnet_jax.errors import UserError

#: Images that a thread decodes per task: few, so that threads share a batch evenly; enough to make tasks cheap.
CHUNK = 8

#: Unreadable images in a row after which the disk is to blame, not the images.
MOST_REPLACED = 100

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
    return decode_crop(data, box_of(*image_size(data)), size), label


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

    def new_warnings(self) -> list[str]:
        """Returns a sentence for each image that was added since the last call."""
        with self._lock:
            new = list(self._why.items())[self._reported :]
            self._reported += len(new)
        return [f"{split} image {name} cannot be read: {why}" for (split, name), why in new]


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


class TrainLoader:
    """Loads training batches of one source by number, or the rows of them that this process feeds.

    Attributes:
      unreadable: images that were replaced by the next one that can be read; every process and every run does the same.
    """

    def __init__(self, source: Source, *, seed: int, batch_size: int, rows: tuple[int, int], size: int, crop: str,
                 sides: tuple[int, int], workers: int = 0, repeats: int = 1) -> None:  # fmt: skip
        """Starts threads, which stop with the loader.

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
        self.source, self.seed, self.batch_size, self.rows, self.size = source, seed, batch_size, rows, size
        self.crop, self.sides, self.repeats = crop, sides, repeats
        self.unreadable = Unreadable()
        self._pool = ThreadPoolExecutor(workers or default_workers(), "decode")
        self._pending: dict[tuple[int, int], PendingBatch[tuple[np.ndarray, np.ndarray]]] = {}  # by number and size
        weakref.finalize(self, self._pool.shutdown, wait=False, cancel_futures=True)

    def batches(
        self, numbers: Sequence[int], next_numbers: Sequence[int] = (), sizes: Sequence[int] = ()
    ) -> tuple[np.ndarray, np.ndarray]:
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
            return found[0][0][None], found[0][1][None]
        return np.stack([images for images, _ in found]), np.stack([labels for _, labels in found])

    def _begin(self, number: int, size: int) -> PendingBatch[tuple[np.ndarray, np.ndarray]]:
        first, last = self.rows
        indices = batch_indices(self.seed, number, self.batch_size, len(self.source), self.repeats)[first:last]
        draws = batch_draws(self.seed, number, self.batch_size)[first:last]
        # New arrays for each batch: JAX may still read those that it was given.
        images, labels = np.empty((len(indices), size, size, 3), np.uint8), np.empty(len(indices), np.int32)

        def fill(start: int) -> None:
            for row in range(start, min(start + CHUNK, len(indices))):
                images[row], labels[row] = self._image(int(indices[row]), draws[row], size)

        futures = [self._pool.submit(fill, start) for start in range(0, len(indices), CHUNK)]
        return PendingBatch((images, labels), futures)

    def _image(self, index: int, draws: np.ndarray, size: int) -> tuple[np.ndarray, int]:
        def box_of(height: int, width: int) -> Box:
            return crop_box(self.crop, draws, height, width, size, self.sides)

        for further in range(min(MOST_REPLACED, len(self.source))):
            place = (index + further) % len(self.source)
            try:
                return load_crop(self.source, place, box_of, size)
            except (RecordError, DecodeError) as error:
                self.unreadable.add("training", self.source.name(place), error)
        raise UserError(
            f"{further + 1} images in a row, from {self.source.name(index)} on, cannot be read: "
            f"{(self.unreadable.new_warnings() or ['see above'])[-1]}"
        )
