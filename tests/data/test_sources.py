"""Where small sets come from: what is in them, and what is said of one that is not there."""

import socket
from pathlib import Path

import numpy as np
import pytest

from resnet_jax.data.dataset import Dataset, Split, hold_out
from resnet_jax.data.sources import load_dataset, load_digits, load_synthetic
from resnet_jax.errors import UserError
from tests.data.cifar_files import binary_files, python_files, write

TFDS_DIRECTORY = Path(__file__).parents[3] / "shared" / "data" / "tensorflow_datasets"


def check_splits(dataset, train, test, shape, classes):
    """What every source promises: uint8 images, int32 labels, all classes in both splits."""
    assert (len(dataset.train), len(dataset.test), dataset.image_shape) == (train, test, shape)
    assert dataset.num_classes == classes
    for split, count in ((dataset.train, train), (dataset.test, test)):
        assert split.images.shape == (count, *shape)
        assert split.labels.shape == (count,)
        assert (split.images.dtype, split.labels.dtype) == (np.uint8, np.int32)
        np.testing.assert_array_equal(np.unique(split.labels), np.arange(classes))


def test_digits_are_scikit_learns_in_their_order():
    """1,797 images; the first 1,437 train. Grey levels 0 to 16 become 0 to 255."""
    digits = load_digits()
    check_splits(digits, 1437, 360, (8, 8, 1), 10)
    # The first image is a nought, the famous one of scikit-learn's tutorial.
    levels = [
        [0, 0, 5, 13, 9, 1, 0, 0],
        [0, 0, 13, 15, 10, 15, 5, 0],
        [0, 3, 15, 2, 0, 11, 8, 0],
        [0, 4, 12, 0, 0, 8, 8, 0],
        [0, 5, 8, 0, 0, 9, 8, 0],
        [0, 4, 11, 0, 1, 12, 7, 0],
        [0, 2, 14, 5, 10, 12, 0, 0],
        [0, 0, 6, 13, 10, 0, 0, 0],
    ]
    np.testing.assert_allclose(digits.train.images[0, :, :, 0], np.array(levels) * 255 / 16, atol=0.5)
    np.testing.assert_array_equal(digits.train.labels[:12], [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 0, 1])

    from sklearn import datasets

    raw = datasets.load_digits()
    together = np.concatenate([digits.train.images, digits.test.images])[..., 0]
    np.testing.assert_allclose(together, raw.images * 255 / 16, atol=0.5)
    np.testing.assert_array_equal(np.concatenate([digits.train.labels, digits.test.labels]), raw.target)
    assert together.max() == 255, "nothing wraps around at the brightest level"


def test_synthetic_images_are_the_same_every_time():
    one, two = load_synthetic(), load_synthetic()
    check_splits(one, 1024, 256, (32, 32, 3), 10)
    for a, b in ((one.train, two.train), (one.test, two.test)):
        np.testing.assert_array_equal(a.images, b.images)
        np.testing.assert_array_equal(a.labels, b.labels)
    seen = {image.tobytes() for image in one.train.images}
    assert not any(image.tobytes() in seen for image in one.test.images), "test images are not training images"


def test_synthetic_images_can_be_learnt():
    """The nearest mean training image of a class recognises every test image, so a net can too."""
    data = load_synthetic(size=16, train=500, test=100)
    check_splits(data, 500, 100, (16, 16, 3), 10)
    train = data.train.images.reshape(500, -1).astype(float)
    means = np.stack([train[data.train.labels == c].mean(axis=0) for c in range(10)])
    distances = ((data.test.images.reshape(100, 1, -1) - means) ** 2).sum(axis=2)
    np.testing.assert_array_equal(distances.argmin(axis=1), data.test.labels)


def test_take_keeps_images_and_labels_together():
    split = Split(np.arange(5, dtype=np.uint8).reshape(5, 1, 1, 1), np.arange(5, dtype=np.int32) * 10)
    taken = split.take(np.array([3, 0, 3]))
    np.testing.assert_array_equal(taken.images.ravel(), [3, 0, 3])
    np.testing.assert_array_equal(taken.labels, [30, 0, 30])


def numbered(count):
    """A set whose images and labels say which they are."""
    images = np.arange(count).reshape(-1, 1, 1, 1).astype(np.uint8)
    train = Split(images, np.arange(count, dtype=np.int32))
    return Dataset("numbered", train, Split(images[:2] + 200, np.array([-1, -2], np.int32)), count)


@pytest.mark.parametrize("count", [1, 10, 99])
def test_hold_out_parts_are_disjoint_and_complete(count):
    part = hold_out(numbered(100), count)
    assert (len(part.train), len(part.test)) == (100 - count, count)
    together = np.concatenate([part.train.labels, part.test.labels])
    np.testing.assert_array_equal(np.sort(together), np.arange(100))  # and nothing of the test set
    for split in (part.train, part.test):
        np.testing.assert_array_equal(split.images.ravel(), split.labels)


def test_hold_out_is_one_fixed_random_choice():
    """Written down once: another choice would make runs incomparable that look the same."""
    held = hold_out(numbered(100), 10).test.labels
    np.testing.assert_array_equal(held, [7, 18, 40, 51, 52, 55, 68, 78, 86, 91])
    np.testing.assert_array_equal(held, hold_out(numbered(100), 10).test.labels)
    assert set(held) <= set(hold_out(numbered(100), 20).test.labels)


def test_load_dataset_holds_out():
    part = load_dataset("digits", held_out=200)
    assert (len(part.train), len(part.test)) == (1237, 200)
    assert len(load_dataset("digits").train) == 1437


def test_a_set_is_read_once_in_a_process():
    """Several runs in one process, as in an ablation, share it."""
    assert load_dataset("digits") is load_dataset("digits")


@pytest.mark.parametrize("count", [-1, 1437, 5000])
def test_holding_out_too_many_is_a_user_error(count):
    with pytest.raises(UserError, match=f"held_out={count} must be 0 or more and below 1437 for digits"):
        load_dataset("digits", held_out=count)


def test_unknown_dataset_is_a_user_error_with_the_nearest():
    with pytest.raises(UserError, match="unknown dataset 'cifar-10'; did you mean cifar10"):
        load_dataset("cifar-10")


@pytest.fixture
def no_network(monkeypatch):
    """Any attempt to reach the network is recorded, and refused."""
    attempts = []

    def refuse(*args, **kwargs):
        attempts.append(args)
        raise OSError("the test has no network")

    for name in ("connect", "connect_ex", "sendto"):
        monkeypatch.setattr(socket.socket, name, refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    monkeypatch.setattr(socket, "create_connection", refuse)
    return attempts


@pytest.mark.parametrize("name", ["cifar10", "cifar100"])
def test_data_dir_without_the_set_is_a_user_error_and_nothing_is_downloaded(name, tmp_path, no_network, monkeypatch):
    """Who names a directory wants its data: a silent download of 170 MB into it would be a surprise."""
    monkeypatch.setattr("resnet_jax.data.sources.download", lambda *_, **__: pytest.fail("a download"))
    with pytest.raises(UserError, match=rf"data_dir={tmp_path} holds no {name} .*leave the field out"):
        load_dataset(name, str(tmp_path))
    assert no_network == []
    assert list(tmp_path.rglob("*")) == []


@pytest.mark.parametrize("kind", ["missing", "file"])
def test_data_dir_that_is_not_a_folder_is_a_user_error(kind, tmp_path, no_network):
    path = tmp_path / "data"
    if kind == "file":
        path.write_text("")
    with pytest.raises(UserError, match=rf"data_dir={path} is not a folder.*cifar10"):
        load_dataset("cifar10", str(path))
    assert no_network == []


@pytest.fixture(scope="module")
def cifar10():
    """Reads 60,000 images: ten seconds, once."""
    pytest.importorskip("tensorflow_datasets", reason="tensorflow-datasets is not installed")
    if not (TFDS_DIRECTORY / "cifar10").is_dir():
        pytest.skip(f"no prepared CIFAR-10 in {TFDS_DIRECTORY}")
    return load_dataset("cifar10", str(TFDS_DIRECTORY))


def test_cifar10_has_its_shapes_and_classes(cifar10):
    check_splits(cifar10, 50_000, 10_000, (32, 32, 3), 10)
    np.testing.assert_array_equal(np.bincount(cifar10.train.labels), np.full(10, 5000))
    np.testing.assert_array_equal(np.bincount(cifar10.test.labels), np.full(10, 1000))


def test_cifar10_training_mean_is_the_published_one(cifar10):
    """In RGB order; a decoder that gives BGR would swap the first and the last."""
    mean = cifar10.train.images.mean(axis=(0, 1, 2), dtype=np.float64)
    np.testing.assert_allclose(mean, (125.307, 122.950, 113.865), atol=1e-2)


@pytest.mark.parametrize("files", [binary_files, python_files])
def test_cifar10_is_the_same_from_its_own_files(files, cifar10, tmp_path):
    """All of it, written as its authors publish it, comes back; only the order in the files is another one."""
    parts = [(split.labels, split.images) for split in (cifar10.train, cifar10.test)]
    found = load_dataset("cifar10", str(write(tmp_path, files("cifar10", *parts))))
    check_splits(found, 50_000, 10_000, (32, 32, 3), 10)
    for one, other in ((cifar10.train, found.train), (cifar10.test, found.test)):
        rows = [sorted(zip(map(bytes, s.images), s.labels.tolist(), strict=True)) for s in (one, other)]
        assert rows[0] == rows[1]
    names = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
    assert found.classes == cifar10.classes == names


def test_cifar10_split_of_the_paper(cifar10):
    """45k/5k (2015, section 4.2), every image in one part."""
    part = hold_out(cifar10, 5000)
    assert (len(part.train), len(part.test)) == (45_000, 5_000)
    counts = np.bincount(part.train.labels) + np.bincount(part.test.labels)
    np.testing.assert_array_equal(counts, np.full(10, 5000))
    kept = part.train.images.sum(axis=0, dtype=np.int64) + part.test.images.sum(axis=0, dtype=np.int64)
    np.testing.assert_array_equal(kept, cifar10.train.images.sum(axis=0, dtype=np.int64))
