"""Chooses the examples of each step: a pure function of (seed, step), so that a resumed run sees the same batches."""

import functools
from collections.abc import Collection, Iterable, Iterator

import numpy as np


def batch_indices(seed: int, step: int, batch_size: int, examples: int, repeats: int = 1) -> np.ndarray:
    """Returns the indices of the examples of one training batch, int32, (batch_size,).

    The batches go through an endless sequence of shuffled epochs: every example is seen once in each epoch, and
    a batch at the end of one epoch is filled from the next. Steps count from 0.

    With `repeats`, every example comes so many times in a row, each time with its own crop (Hoffer et al. 2020,
    "Augment your batch"; Berman et al. 2019, "MultiGrain"), and an epoch takes as many times longer.
    """
    position = (step * batch_size + np.arange(batch_size, dtype=np.int64)) // repeats
    epochs, offsets = np.divmod(position, examples)
    indices = np.empty(batch_size, np.int32)
    for epoch in np.unique(epochs):
        here = epochs == epoch
        indices[here] = _shuffle(seed, int(epoch), examples)[offsets[here]]
    return indices


@functools.lru_cache(maxsize=4)
def _shuffle(seed: int, epoch: int, examples: int) -> np.ndarray:
    # Philox is counter-based and keyed: (seed, epoch) needs no state of earlier epochs.
    return np.random.Generator(np.random.Philox(key=[seed, epoch])).permutation(examples)


def batch_numbers(steps: Iterable[int], skipped: Collection[int]) -> list[int]:
    """Returns the number of each step's batch: step n takes the n-th batch, from 0, of those not skipped."""
    numbers = []
    for number in steps:
        for left_out in sorted(skipped):
            number += left_out <= number
        numbers.append(number)
    return numbers


def padded_batches(examples: int, batch_size: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yields all indices in order, in batches of one size: (indices int32, mask float32), each (batch_size,).

    The last batch is padded with index 0 and mask 0, so that every example counts once.
    """
    for start in range(0, examples, batch_size):
        indices = np.arange(start, start + batch_size)
        mask = indices < examples
        yield np.where(mask, indices, 0).astype(np.int32), mask.astype(np.float32)
