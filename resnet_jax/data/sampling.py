"""Which examples a step sees: a pure function of (seed, step), so that no order of asking and no kill changes it."""

import functools
from collections.abc import Collection, Iterable, Iterator

import numpy as np


def batch_indices(seed: int, step: int, batch_size: int, examples: int, repeats: int = 1) -> np.ndarray:
    """Indices of the examples of one training batch, int32, (batch_size,).

    The batches run through one endless sequence of shuffled epochs: every example is seen once in each epoch, and
    a batch at the end of one epoch is filled from the next. Step counts from 0.

    With `repeats`, every example of that sequence stands there so many times in a row, for crops of its own each time
    (Hoffer et al. 2020, "Augment your batch"; Berman et al. 2019, "MultiGrain"), and an epoch takes as many times
    longer.
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
    # Philox is counter-based and keyed: (seed, epoch) needs no state from the epochs before.
    return np.random.Generator(np.random.Philox(key=[seed, epoch])).permutation(examples)


def batch_numbers(steps: Iterable[int], skipped: Collection[int]) -> list[int]:
    """Which batch each step takes: the n-th of those not left out, from 0; without any, the step itself."""
    numbers = []
    for number in steps:
        for left_out in sorted(skipped):
            number += left_out <= number
        numbers.append(number)
    return numbers


def padded_batches(examples: int, batch_size: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """All indices in order, in batches of one size: (indices int32, mask float32), each (batch_size,).

    The last batch repeats index 0 where it is too long, with mask 0 there, so that every example counts once.
    """
    for start in range(0, examples, batch_size):
        indices = np.arange(start, start + batch_size)
        mask = indices < examples
        yield np.where(mask, indices, 0).astype(np.int32), mask.astype(np.float32)
