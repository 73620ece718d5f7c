"""Colour shifts against the eigenvectors of NumPy's covariance (Krizhevsky et al. 2012, section 4.1)."""

import jax
import numpy as np
import pytest

from resnet_jax.data.colour import colour_basis, shift_colours
from resnet_jax.errors import UserError


def coloured(count=2500, seed=0):
    """Images whose channels go together, unlike the components of any other set."""
    rng = np.random.default_rng(seed)
    mixed = rng.normal(0, 30, (count, 4, 4, 3)) @ np.array([[1, 0.8, 0.5], [0, 1, -0.4], [0, 0, 0.6]])
    return np.clip(mixed + 128, 0, 255).astype(np.uint8)


def test_basis_is_eigenvectors_times_eigenvalues():
    images = coloured()
    covariance = np.cov(images.reshape(-1, 3).T / 255, ddof=0)
    values, vectors = np.linalg.eigh(covariance)
    found = colour_basis(images)
    for i in range(3):
        # Up to its sign, which a random number of either sign takes up.
        assert abs(found[:, i] @ vectors[:, i]) == pytest.approx(values[i], rel=1e-4)
        assert np.linalg.norm(found[:, i]) == pytest.approx(values[i], rel=1e-4)


def test_published_basis_of_imagenet():
    """Orthonormal columns times the eigenvalues; the first is brightness."""
    found = colour_basis()
    np.testing.assert_allclose(np.linalg.norm(found, axis=0), (0.2175, 0.0188, 0.0045), rtol=1e-3)
    assert np.all(found[:, 0] < 0) and np.ptp(found[:, 0]) < 0.005


def test_every_pixel_of_an_image_shifts_alike_by_the_definition():
    images = np.random.default_rng(1).normal(size=(4000, 2, 2, 3)).astype(np.float32)
    basis, std = colour_basis(coloured()), np.array([0.5, 0.25, 0.2], np.float32)
    shifts = np.asarray(shift_colours(jax.random.key(0), images, basis, 0.1, std)) - images
    np.testing.assert_allclose(shifts - shifts[:, :1, :1], 0, atol=1e-5)
    alphas = (shifts[:, 0, 0] * std) @ np.linalg.inv(np.float64(basis)).T  # undone: what was drawn
    assert np.abs(alphas.mean(axis=0)).max() < 4 * 0.1 / np.sqrt(4000)
    np.testing.assert_allclose(np.cov(alphas.T), 0.01 * np.eye(3), atol=0.001)


def test_grey_images_have_no_colours():
    with pytest.raises(UserError, match="for RGB images, not for 1 channel"):
        colour_basis(np.zeros((2, 4, 4, 1), np.uint8))
