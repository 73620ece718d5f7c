"""Which examples a step takes: each once in an epoch, from whatever step a run goes on."""

import numpy as np
import pytest

from resnet_jax.data import sampling
from resnet_jax.data.sampling import batch_indices, padded_batches


def stream(seed, steps, batch, examples):
    """The examples of the first steps, one after another."""
    return np.concatenate([batch_indices(seed, step, batch, examples) for step in range(steps)])


@pytest.mark.parametrize(("batch", "examples"), [(4, 12), (5, 12), (12, 12), (7, 3), (1, 5), (128, 1437)])
def test_every_example_once_in_each_epoch(batch, examples):
    """Also where a batch spans the end of an epoch, or several epochs."""
    epochs = 5
    seen = stream(3, -(-epochs * examples // batch), batch, examples)[: epochs * examples].reshape(epochs, examples)
    np.testing.assert_array_equal(np.sort(seen, axis=1), np.tile(np.arange(examples), (epochs, 1)))


def test_a_batch_at_the_end_of_an_epoch_is_filled_from_the_next():
    """Ten examples in batches of four: the third batch has the last two of one epoch and the first two of the next."""
    first, second = stream(0, 20, 1, 10).reshape(2, 10)
    np.testing.assert_array_equal(batch_indices(0, 2, 4, 10), [*first[8:], *second[:2]])


@pytest.mark.parametrize(("batch", "examples", "repeats"), [(6, 12, 3), (4, 7, 3), (5, 4, 2), (2, 5, 4)])
def test_repeats_are_the_same_order_each_example_so_often_in_a_row(batch, examples, repeats):
    """Also across the ends of batches and epochs: every example is there equally often, in any batch size."""
    steps = -(-3 * examples * repeats // batch)
    seen = np.concatenate([batch_indices(3, step, batch, examples, repeats) for step in range(steps)])
    once = stream(3, 3 * examples, 1, examples)
    np.testing.assert_array_equal(seen[: len(once) * repeats], np.repeat(once, repeats))
    counts = np.bincount(seen[: examples * repeats], minlength=examples)
    np.testing.assert_array_equal(counts, repeats)


def test_batch_size_only_cuts_the_stream():
    """The order is a function of the seed: the same examples in the same order in any batch size."""
    np.testing.assert_array_equal(stream(1, 30, 4, 17), stream(1, 8, 15, 17))


def test_result_depends_neither_on_the_order_of_asking_nor_on_what_was_asked_before():
    """A run that was killed asks for step 500 first, with nothing in memory."""
    steps = list(range(40))
    forward = {step: batch_indices(7, step, 8, 50).copy() for step in steps}
    backward = {step: batch_indices(7, step, 8, 50).copy() for step in reversed(steps)}
    for step in steps:
        sampling._shuffle.cache_clear()
        fresh = batch_indices(7, step, 8, 50)
        np.testing.assert_array_equal(forward[step], fresh)
        np.testing.assert_array_equal(backward[step], fresh)


def test_writing_to_a_batch_does_not_change_the_next_one():
    batch = batch_indices(0, 0, 10, 10)
    expected = batch.copy()
    batch[:] = 0
    np.testing.assert_array_equal(batch_indices(0, 0, 10, 10), expected)


def test_seeds_and_epochs_are_shuffled_differently():
    """Also seed 1 epoch 0 and seed 0 epoch 1, which a sum of both would confuse."""
    orders = {tuple(batch_indices(seed, epoch, 100, 100)) for seed in range(4) for epoch in range(4)}
    assert len(orders) == 16
    assert tuple(range(100)) not in orders


def test_every_example_comes_at_every_place():
    """Over 2000 epochs of 5 examples each place holds each example about 400 times (five deviations of 18)."""
    orders = np.stack([batch_indices(11, epoch, 5, 5) for epoch in range(2000)])
    counts = np.stack([(orders == example).sum(axis=0) for example in range(5)])
    assert np.abs(counts - 400).max() < 5 * np.sqrt(2000 * 0.2 * 0.8)


def test_late_steps_do_not_overflow():
    """Step 64,000 of batch 128 is example 8 million; step 2^31 must work too."""
    for step in (64_000, 2**31):
        indices = batch_indices(0, step, 128, 50_000)
        assert indices.dtype == np.int32
        assert 0 <= indices.min() <= indices.max() < 50_000


@pytest.mark.parametrize(("examples", "batch"), [(10, 4), (12, 4), (3, 5), (1, 1), (360, 500), (10_000, 512)])
def test_padded_batches_count_each_example_once(examples, batch):
    batches = list(padded_batches(examples, batch))
    assert len(batches) == -(-examples // batch)
    for indices, mask in batches:
        assert indices.shape == mask.shape == (batch,)
        assert (indices.dtype, mask.dtype) == (np.int32, np.float32)
        assert set(np.unique(mask)) <= {0.0, 1.0}
        assert 0 <= indices.min() <= indices.max() < examples, "what is masked must still be an index"
    indices, mask = (np.concatenate(parts) for parts in zip(*batches, strict=True))
    np.testing.assert_array_equal(indices[mask == 1], np.arange(examples))
    assert mask.sum() == examples
