"""Probabilities and embeddings of images of one's own."""

import dataclasses

import numpy as np
import pytest

from resnet_jax.data.sources import load_digits
from resnet_jax.errors import UserError
from resnet_jax.evaluation import predict as module
from resnet_jax.evaluation.predict import classes_of, embed, find_class, predict, prepare_image
from resnet_jax.models import forward_with_features
from tests.evaluation.nets import small_weights


def test_a_net_of_a_mean_image_sees_digits_as_its_tests_do(monkeypatch):
    """Five images in batches of two, the last one not full."""
    images = load_digits().test.images[:5]
    mean = np.random.default_rng(0).uniform(size=(8, 8, 1)).astype(np.float32)
    weights = small_weights(channels=1, mean=mean)
    monkeypatch.setattr(module, "BATCH", 2)
    normalised = np.float32((np.float64(images) / 255 - mean) / 0.25)
    logits, features = forward_with_features(weights.create_model(), weights.variables, normalised)
    powers = np.exp(np.float64(logits))
    np.testing.assert_allclose(predict(weights, list(images)), powers / powers.sum(axis=1, keepdims=True), rtol=1e-4)
    vectors = np.float64(features["final"]).mean(axis=(1, 2))
    np.testing.assert_allclose(embed(weights, list(images)), vectors, rtol=1e-4, atol=1e-6)
    lengths = np.sqrt((vectors**2).sum(axis=1, keepdims=True))
    np.testing.assert_allclose(embed(weights, list(images), unit_length=True), vectors / lengths, rtol=1e-4, atol=1e-6)


def test_no_images():
    weights = small_weights()
    assert predict(weights, []).shape == (0, 3) and embed(weights, []).shape == (0, 6)


@pytest.mark.parametrize("image", [np.zeros((4, 4, 3)), np.zeros((4, 4, 2), np.uint8), np.zeros((0, 4), np.uint8)])
def test_what_is_no_image_is_refused(image):
    with pytest.raises(UserError, match="an image must be uint8"):
        prepare_image(small_weights(), image)


def test_weights_of_four_channels_are_refused_in_a_line():
    """Such as an earlier version converted."""
    with pytest.raises(UserError, match="images of 4 channels, and images here have 1 or 3"):
        predict(small_weights(channels=4), [np.zeros((8, 8, 3), np.uint8)])


def test_weights_that_give_no_numbers_are_said():
    weights = small_weights()
    weights.variables["params"]["head"]["bias"][1] = np.nan
    with pytest.raises(UserError, match="gives NaN or infinity"):
        predict(weights, [np.zeros((8, 8, 3), np.uint8)])


def test_classes_by_id_name_and_label():
    weights = small_weights(classes=("n01440764", "dog", "2"))
    assert [c.name for c in classes_of(weights)] == ["tench", "dog", "2"]
    assert [find_class(weights, n).label for n in ("n01440764", "TENCH", "1", "2", "Dog")] == [0, 0, 1, 2, 1]
    unknown = dataclasses.replace(weights, classes=())
    assert [c.name for c in classes_of(unknown)] == ["class 0", "class 1", "class 2"]
    with pytest.raises(UserError, match="unknown class 'cat'"):
        find_class(weights, "cat")


def test_classes_of_sets_whose_runs_do_not_record_them():
    for count, dataset, name in ((10, "digits", "7"), (10, "cifar10", "horse"), (3, "digits", "class 2")):
        weights = dataclasses.replace(small_weights(classes=tuple("abcdefghij"[:count])), classes=())
        named = classes_of(dataclasses.replace(weights, source={"dataset": dataset}))
        assert named[min(7, count - 1)].name == name and len(named) == count
