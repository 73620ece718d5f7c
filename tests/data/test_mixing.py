"""Mixup, CutMix and smoothing against their definitions in NumPy; images carry their number, so mixes can be read."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from resnet_jax.config import base_config
from resnet_jax.data.mixing import cutmix, mixup, smooth_labels, soften
from resnet_jax.tasks.classification import Classification

BATCH, SIDE = 8, 16
TARGETS = jnp.eye(BATCH)  # each example is its own class


def numbered():
    return jnp.broadcast_to(jnp.arange(BATCH, dtype=jnp.float32)[:, None, None, None], (BATCH, SIDE, SIDE, 3))


def read_mix(targets):
    """(weight, partner of each), from one-hot targets that were mixed; the first example with another partner."""
    targets = np.asarray(targets, np.float64)
    own = np.diag(targets)
    partners = np.array([int(np.argmax(np.where(np.arange(BATCH) == i, -1, row))) for i, row in enumerate(targets)])
    partners = np.where(own > 1 - 1e-6, np.arange(BATCH), partners)
    return own, partners


def test_smoothing():
    """q' = (1 - e) q + e / K (Szegedy et al. 2016, section 7), with 8 classes and 0.1."""
    found = np.asarray(smooth_labels(TARGETS, 0.1))
    np.testing.assert_allclose(np.diag(found), 0.9 + 0.1 / 8, rtol=1e-6)
    np.testing.assert_allclose(found.sum(axis=1), 1, rtol=1e-6)
    assert found[0, 1] == pytest.approx(0.1 / 8)


def test_mixup_is_one_weighted_sum_for_images_and_targets():
    rng = np.random.default_rng(0)
    images = jnp.asarray(rng.normal(size=(BATCH, 4, 4, 3)), jnp.float32)
    for seed in range(10):
        found, targets = mixup(jax.random.key(seed), images, TARGETS, 0.8)
        own, partners = read_mix(targets)
        moved = partners != np.arange(BATCH)
        weight = own[moved][0]
        np.testing.assert_allclose(own[moved], weight, rtol=1e-5)
        np.testing.assert_allclose(targets, weight * TARGETS + (1 - weight) * TARGETS[partners], atol=1e-6)
        np.testing.assert_allclose(found, weight * images + (1 - weight) * images[partners], atol=1e-5)


@pytest.mark.parametrize("alpha", [0.5, 1.0])
def test_mixup_weights_are_beta(alpha):
    @jax.jit
    @jax.vmap
    def weight(key):
        # Two images, 0 and 1: mixed with each other, their first pixel is the weight or its complement.
        images, _ = mixup(key, jnp.array([0.0, 1.0]).reshape(2, 1, 1, 1), jnp.eye(2), alpha)
        return images[:, 0, 0, 0]

    pairs = np.asarray(weight(jax.random.split(jax.random.key(0), 4000)))
    mixed = pairs[(pairs[:, 0] > 0) & (pairs[:, 0] < 1)]
    # The identity permutation, half of all, leaves 0 and 1.
    assert np.mean(pairs[:, 0] == 0) == pytest.approx(0.5, abs=0.1)
    assert stats.kstest(mixed[:, 0], stats.beta(alpha, alpha).cdf).pvalue > 1e-3


def test_cutmix_pastes_one_rectangle_and_weighs_by_its_area():
    images, areas = np.asarray(numbered()), []
    for seed in range(40):
        found, targets = (np.asarray(x) for x in cutmix(jax.random.key(seed), jnp.asarray(images), TARGETS, 1.0))
        pasted = np.any(found != images, axis=(0, 3))
        own, partners = read_mix(targets)
        for i in range(BATCH):
            expected = np.where(pasted[..., None], np.float32(partners[i]), np.float32(i))
            if partners[i] != i:
                np.testing.assert_array_equal(found[i], np.broadcast_to(expected, found[i].shape))
                assert own[i] == pytest.approx(1 - pasted.mean(), abs=1e-6)
        if pasted.any():
            rows, columns = np.flatnonzero(pasted.any(axis=1)), np.flatnonzero(pasted.any(axis=0))
            assert pasted.sum() == len(rows) * len(columns)
        areas.append(pasted.mean())
        np.testing.assert_allclose(targets.sum(axis=1), 1, rtol=1e-6)
    assert len(set(areas)) > 20


def test_cutmix_areas_are_those_of_the_definition():
    """Algorithm A1 there, in NumPy: 1 - the weight over 3000 batches, by the mean and the deviation."""

    @jax.jit
    def areas(alpha):
        def area(key):
            _, targets = cutmix(key, jnp.zeros((2, SIDE, SIDE, 1)), jnp.eye(2), alpha)
            return 1 - targets[0, 0]

        return jax.vmap(area)(jax.random.split(jax.random.key(0), 6000))

    for alpha in (0.2, 1.0):
        rng, expected = np.random.default_rng(0), []
        for _ in range(3000):
            cut = int(SIDE * np.sqrt(1 - rng.beta(alpha, alpha)))
            spans = []
            for middle in rng.integers(0, SIDE, 2):
                spans.append(np.clip(middle + cut // 2, 0, SIDE) - np.clip(middle - cut // 2, 0, SIDE))
            expected.append(spans[0] * spans[1] / SIDE**2)
        expected = np.array([a for a in expected if a > 0])
        found = np.asarray(areas(alpha))
        found = found[found > 0]  # half of the batches are mixed with themselves
        assert found.mean() == pytest.approx(expected.mean(), abs=0.02)
        assert found.std() == pytest.approx(expected.std(), abs=0.02)


def test_off_changes_nothing():
    images, labels = numbered(), np.arange(BATCH)
    same, same_labels = soften(jax.random.key(0), images, labels, BATCH)
    assert same is images and same_labels is labels


def test_with_both_mixes_on_batches_take_turns():
    """A pasted image has pixels of its own and of another; a mixed one is in between."""
    mix = jax.jit(lambda key: soften(key, numbered(), jnp.arange(BATCH), BATCH, mixup_alpha=1.0, cutmix_alpha=1.0))
    kinds = []
    for seed in range(60):
        images, _ = mix(jax.random.key(seed))
        whole = np.asarray(images) % 1 == 0
        kinds.append(bool(whole.all()))
    assert 15 < sum(kinds) < 45


@pytest.mark.parametrize("kind", ["mixup", "cutmix"])
def test_a_mix_alone_is_the_one_that_the_config_names(kind):
    """With its targets smoothed: 0.9 of the mix and a tenth of every class's share."""
    config = base_config()
    config.regularization.update({kind: 1.0, "label_smoothing": 0.1})
    augment = jax.jit(Classification.from_config(config, BATCH).augment)
    mixed = 0
    for seed in range(5):
        images, targets = (np.asarray(x) for x in augment(jax.random.key(seed), numbered(), np.arange(BATCH)))
        own, partners = read_mix((targets - 0.1 / BATCH) / 0.9)
        for i in np.flatnonzero((partners != np.arange(BATCH)) & (own > 1e-3)):
            # The share of each image's own pixels, and whether a pixel is of one image alone.
            shares = (images[i] - partners[i]) / (i - partners[i])
            assert shares.mean() == pytest.approx(own[i], abs=1e-4)
            assert np.allclose(shares, own[i], atol=1e-4) == (kind == "mixup")
            assert np.allclose(shares, np.rint(shares)) == (kind == "cutmix")
            mixed += 1
    assert mixed > BATCH
