"""A map laid over its image."""

import numpy as np

from resnet_jax.report.overlay import overlay


def test_the_warm_place_changes_and_the_cold_ones_keep_the_image():
    pixels = np.random.default_rng(0).integers(0, 256, (32, 32, 3)).astype(np.uint8)
    heat = np.zeros((8, 8))
    heat[1, 6] = 3.0  # above and to the right
    found = overlay(pixels, heat).astype(int)
    large = pixels.repeat(7, axis=0).repeat(7, axis=1)
    changed = np.abs(found - large).sum(axis=-1) > 30
    assert found.shape == (224, 224, 3) and changed[28:56, 168:196].mean() > 0.8
    np.testing.assert_array_equal(found[112:], large[112:])
    np.testing.assert_array_equal(found[:, :100], large[:, :100])


def test_a_map_of_zeros_and_a_grey_image():
    pixels = np.full((224, 224, 1), 7, np.uint8)
    np.testing.assert_array_equal(overlay(pixels, np.zeros((7, 7))), np.full((224, 224, 3), 7))
