"""Batches decoded by threads ahead of their use: what is in one is a pure function of (seed, number)."""

import os
import threading
import weakref
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np

from resnet_jax.data.imagenet.crops import Box, batch_draws, crop_box
from resnet_jax.data.imagenet.decode import DecodeError, decode_crop, image_size
from resnet_jax.data.imagenet.source import RecordError, Source
from resnet_jax.data.sampling import batch_indices
from resnet_jax.errors import UserError

#: Images that a thread takes at once: few enough to share a batch evenly, enough to make handing out cheap.
CHUNK = 8

#: Unreadable images in a row until it is the disk and not the images.
MOST_REPLACED = 100

#: Batches being decoded besides the one that is waited for.
AHEAD = 3

BoxOf = Callable[[int, int], Box]


def default_workers() -> int:
    """Threads: one for each core that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def load_crop(source: Source, index: int, box_of: BoxOf, size: int) -> tuple[np.ndarray, int]:
    """One image of a source, cropped: uint8 (size, size, 3), and its label.

    Args:
      source: where it is.
      index: its place.
      box_of: (height, width) of the image to the box to cut out.
      size: pixels of a side.

    Raises:
      RecordError, DecodeError: if it cannot be read.
    """
    _, label, data = source.load(index)
    return decode_crop(data, box_of(*image_size(data)), size), label


class Unreadable:
    """Images that could not be read: counted once each, whatever thread met them."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._why: dict[tuple[str, str], str] = {}
        self._told = 0

    def add(self, split: str, name: str, error: Exception) -> None:
        """Notes one."""
        with self._lock:
            self._why.setdefault((split, name), str(error))

    def __len__(self) -> int:
        return len(self._why)

    def news(self) -> list[str]:
        """A sentence for each that was met since the last call."""
        with self._lock:
            new = list(self._why.items())[self._told :]
            self._told += len(new)
        return [f"{split} image {name} cannot be read: {why}" for (split, name), why in new]


class _Pending:
    """A batch under way: arrays, and the threads' promises that they are filled."""

    def __init__(self, images: np.ndarray, labels: np.ndarray, futures: Sequence[Future]) -> None:
        self.images, self.labels, self.futures = images, labels, futures

    def result(self) -> tuple[np.ndarray, np.ndarray]:
        for future in self.futures:
            future.result()
        return self.images, self.labels


class TrainLoader:
    """Training batches of one source by their numbers, or the share of them that this process feeds.

    Attributes:
      unreadable: images that were replaced by the next one that can be read, as every process and every run does.
    """

    def __init__(self, source: Source, *, seed: int, batch_size: int, rows: tuple[int, int], size: int, crop: str,
                 sides: tuple[int, int], workers: int = 0, repeats: int = 1) -> None:  # fmt: skip
        """Starts threads, which stop with the loader.

        Args:
          source: where images are.
          seed: of order and crops.
          batch_size: of the whole batch.
          rows: the first, and the one behind the last, of those that this process feeds.
          size: pixels of a side.
          crop, sides: see `crops.crop_box`.
          workers: threads; 0: one for each core.
          repeats: see `sampling.batch_indices`.
        """
        self.source, self.seed, self.batch_size, self.rows, self.size = source, seed, batch_size, rows, size
        self.crop, self.sides, self.repeats = crop, sides, repeats
        self.unreadable = Unreadable()
        self._pool = ThreadPoolExecutor(workers or default_workers(), "decode")
        self._pending: dict[tuple[int, int], _Pending] = {}  # by number and size
        weakref.finalize(self, self._pool.shutdown, wait=False, cancel_futures=True)

    def batches(
        self, numbers: Sequence[int], next_numbers: Sequence[int] = (), sizes: Sequence[int] = ()
    ) -> tuple[np.ndarray, np.ndarray]:
        """Batches by number, with the next ones already under way when it returns.

        `sizes` are pixels of a side of each of both, `size` if it is empty; `numbers` share one.

        Returns:
          uint8 images (count, rows, size, size, 3) and int32 labels (count, rows).

        Raises:
          UserError: if too many images in a row cannot be read.
        """
        both = [*numbers, *next_numbers]
        wanted = list(zip(both, sizes or [self.size] * len(both), strict=True))
        for key in self._pending.keys() - set(wanted):  # after a step back, or the end
            for future in self._pending.pop(key).futures:
                future.cancel()
        for key in wanted:
            if key not in self._pending:
                self._pending[key] = self._begin(*key)
        found = [self._pending.pop(key).result() for key in wanted[: len(numbers)]]
        if len(found) == 1:  # without a copy
            return found[0][0][None], found[0][1][None]
        return np.stack([images for images, _ in found]), np.stack([labels for _, labels in found])

    def _begin(self, number: int, size: int) -> _Pending:
        first, last = self.rows
        indices = batch_indices(self.seed, number, self.batch_size, len(self.source), self.repeats)[first:last]
        draws = batch_draws(self.seed, number, self.batch_size)[first:last]
        # New arrays for each batch: JAX may go on reading those that it was given.
        images, labels = np.empty((len(indices), size, size, 3), np.uint8), np.empty(len(indices), np.int32)

        def fill(start: int) -> None:
            for row in range(start, min(start + CHUNK, len(indices))):
                images[row], labels[row] = self._image(int(indices[row]), draws[row], size)

        return _Pending(images, labels, [self._pool.submit(fill, start) for start in range(0, len(indices), CHUNK)])

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
            f"{(self.unreadable.news() or ['see above'])[-1]}"
        )
