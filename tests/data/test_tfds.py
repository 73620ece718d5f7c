"""Any classification set of tensorflow-datasets: in memory or streamed, with a split to evaluate on or without."""

import numpy as np
import pytest
from PIL import Image

from resnet_jax.data.dataset import Dataset, Split, resized
from resnet_jax.data.image_files import decode
from resnet_jax.data.sources import load_dataset
from resnet_jax.data.streaming import open_splits
from resnet_jax.data.tfds import open_tfds
from resnet_jax.errors import UserError


def prepare(folder, name, splits, sizes, label=True, unlabelled=()):
    """A set on disk whose code is gone, as TFDS finds one that somebody else has prepared.

    The images of `unlabelled` splits have the label -1, as TFDS gives to the test images of ImageNet.
    """
    import tensorflow_datasets as tfds

    fixed = len(set(sizes)) == 1
    features = {"image": tfds.features.Image(shape=(*sizes[0], 3) if fixed else (None, None, 3))}
    features["label" if label else "kind"] = tfds.features.ClassLabel(names=["ant", "bee"])

    class Builder(tfds.core.GeneratorBasedBuilder, skip_registration=True):
        VERSION = tfds.core.Version("1.0.0")

        def _info(self):
            return tfds.core.DatasetInfo(builder=self, features=tfds.features.FeaturesDict(features))

        def _split_generators(self, dl_manager):
            return {split: self._generate_examples(split, count) for split, count in splits.items()}

        def _generate_examples(self, split, count):
            for i in range(count):
                pixels = np.full((*sizes[i % len(sizes)], 3), 10 * i, np.uint8)
                kind = -1 if split in unlabelled else i % 2
                yield i, {"image": Image.fromarray(pixels), "label" if label else "kind": kind}

    Builder.name = name
    Builder(data_dir=str(folder), file_format="array_record").download_and_prepare()
    return str(folder)


def test_a_set_of_one_size_is_in_memory(tmp_path):
    where = prepare(tmp_path, "little_ants", {"train": 10, "validation": 4}, [(6, 6)])
    assert not open_tfds("tfds:little_ants", where).is_streamed
    dataset = load_dataset("tfds:little_ants", where)
    assert (dataset.evaluated_on, dataset.classes, len(dataset.train), len(dataset.test)) == (
        "validation", ("ant", "bee"), 10, 4)  # fmt: skip
    for split in (dataset.train, dataset.test):
        assert sorted(split.images[:, 0, 0, 0] // 10) == list(range(len(split)))
        np.testing.assert_array_equal(split.labels, split.images[:, 0, 0, 0] // 10 % 2)
    counted = load_dataset("tfds:little_ants", where, 3)
    assert (len(counted.train), len(counted.test)) == (7, 3)
    for count in (-3, 10):
        with pytest.raises(UserError, match=f"held_out={count} must be 0 or more and below 10 for tfds:little_ants"):
            load_dataset("tfds:little_ants", where, count)
    held = load_dataset("tfds:little_ants", where, 0, 0.4, "held_out")
    assert (len(held.train), len(held.test), held.evaluated_on) == (6, 4, "held_out")
    assert sorted(held.test.labels) == [0, 0, 1, 1]
    values = [set(split.images[:, 0, 0, 0]) for split in (held.train, held.test)]
    assert not values[0] & values[1] and len(values[0] | values[1]) == 10


def test_a_set_of_many_sizes_is_streamed_and_parted_by_class(tmp_path):
    where = prepare(tmp_path, "large_ants", {"train": 12}, [(20, 30), (31, 17)])
    assert open_tfds("tfds:large_ants", where).is_streamed
    splits = open_splits("tfds:large_ants", where, 0.5)
    assert (splits.evaluated_on, len(splits.train), len(splits.test)) == ("held_out", 6, 6)
    seen = []
    for part in (splits.train, splits.test):
        for i in range(len(part)):
            _, label, data = part.load(i)
            number = decode(data)[0, 0, 0] // 10
            assert number % 2 == label and decode(data).shape == [(20, 30, 3), (31, 17, 3)][number % 2]
            seen.append(number)
    assert sorted(seen) == list(range(12))
    with pytest.raises(UserError, match="training images alone"):
        open_splits("tfds:large_ants", where)


@pytest.mark.parametrize("sizes", [[(6, 6)], [(6, 6), (9, 8)]], ids=["in memory", "streamed"])
def test_test_images_without_labels_are_not_evaluated_on(tmp_path, sizes):
    """Their labels are -1: every guess would be wrong, or be held against the last class."""
    name = "unlabelled_ants" if len(sizes) == 1 else "unlabelled_large_ants"
    splits = {"train": 8, "validation": 4, "test": 4}
    where = prepare(tmp_path, name, splits, sizes, unlabelled=["test"])

    def labels(eval_split):
        if len(sizes) == 1:
            dataset = load_dataset(f"tfds:{name}", where, 0, 0.5, eval_split)
            return dataset.evaluated_on, sorted(dataset.test.labels)
        opened = open_splits(f"tfds:{name}", where, 0.5, eval_split)
        return opened.evaluated_on, sorted(opened.test.load(i).label for i in range(len(opened.test)))

    assert labels("auto") == ("validation", [0, 0, 1, 1])
    assert labels("held_out") == ("held_out", [0, 0, 1, 1])
    with pytest.raises(UserError, match=f"eval_split=test, but tfds:{name} has validation"):
        labels("test")


def test_sets_that_are_not_there_or_not_of_images_are_said(tmp_path):
    where = prepare(tmp_path, "odd_ants", {"train": 2}, [(6, 6)], label=False)
    with pytest.raises(UserError, match="is no classification set: .*image, kind"):
        open_tfds("tfds:odd_ants", where)
    with pytest.raises(UserError, match="holds no 'no_ants', nor does tensorflow-datasets know it"):
        open_tfds("tfds:no_ants", where)
    with pytest.raises(UserError, match="holds no prepared mnist"):
        open_tfds("tfds:mnist", where)


def test_small_images_are_fitted_to_a_net():
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (3, 8, 8, 1), dtype=np.uint8)
    dataset = Dataset("x", Split(images, np.zeros(3, np.int32)), Split(images[:1], np.zeros(1, np.int32)), 2)
    small = resized(dataset, 4, rgb=True).train.images
    assert small.shape == (3, 4, 4, 3) and small.dtype == np.uint8
    pooled = images.reshape(3, 4, 2, 4, 2, 1).mean(axis=(2, 4))
    assert np.abs(small - pooled).max() <= 0.5
    large = resized(dataset, 32, rgb=False).test.images
    assert large.shape == (1, 32, 32, 1)
    expected = np.asarray(Image.fromarray(images[0, ..., 0]).resize((32, 32), Image.Resampling.BILINEAR), int)
    assert np.abs(large[0, ..., 0].astype(int) - expected).max() <= 1
    assert resized(dataset, 0, rgb=False) is dataset
