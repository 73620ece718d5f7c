"""CIFAR from every form that it comes in: the same images, labels, names and order; damaged files are named."""

import dataclasses
import gzip
import hashlib
import pickle
import shutil
import sys
import tarfile
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from resnet_jax.data import cifar, sources
from resnet_jax.data.sources import load_cifar
from resnet_jax.errors import UserError
from tests.data.cifar_files import archive, binary_files, python2_pickle, python_files, write

SHARED = Path(__file__).parents[3] / "shared/data/tensorflow_datasets"
needs_cifar10 = pytest.mark.skipif(not SHARED.is_dir(), reason=f"no prepared CIFAR-10 at {SHARED}")

TRAIN, TEST = 50, 20

#: The table of superclasses on the page of CIFAR-100.
SUPERCLASSES = """
beaver dolphin otter seal whale / aquarium_fish flatfish ray shark trout / orchid poppy rose sunflower tulip /
bottle bowl can cup plate / apple mushroom orange pear sweet_pepper / clock keyboard lamp telephone television /
bed chair couch table wardrobe / bee beetle butterfly caterpillar cockroach / bear leopard lion tiger wolf /
bridge castle house road skyscraper / cloud forest mountain plain sea / camel cattle chimpanzee elephant kangaroo /
fox porcupine possum raccoon skunk / crab lobster snail spider worm / baby boy girl man woman /
crocodile dinosaur lizard snake turtle / hamster mouse rabbit shrew squirrel /
maple_tree oak_tree palm_tree pine_tree willow_tree / bicycle bus motorcycle pickup_truck train /
lawn_mower rocket streetcar tank tractor"""


def examples(name, count, seed):
    rng = np.random.default_rng(seed)
    labels = rng.permutation(count) % len(cifar.SETS[name].classes)
    return labels, rng.integers(0, 256, (count, 32, 32, 3), dtype=np.uint8)


@pytest.fixture
def small(monkeypatch):
    """The sets have 50 and 20 images here."""
    for name in cifar.SETS:
        monkeypatch.setitem(cifar.SETS, name, dataclasses.replace(cifar.SETS[name], train=TRAIN, test=TEST))
    monkeypatch.setattr(cifar, "MOST_BESIDES", 10_000)


@pytest.fixture(params=["cifar10", "cifar100"])
def original(request, small):
    """A set's name, and (labels, images) of both splits in the order of its files."""
    return request.param, examples(request.param, TRAIN, 1), examples(request.param, TEST, 2)


def written(form, name, train, test, folder):
    """The set in one of its forms; what to pass as data_dir."""
    files = (python_files if "python" in form else binary_files)(name, train, test)
    inner = next(iter(files)).partition("/")[0]
    packed = f"{name.replace('r', 'r-')}-{'python' if 'python' in form else 'binary'}.tar.gz"
    if "archive" not in form:
        write(folder, files)
        return folder / inner if "itself" in form else folder
    target = folder / (packed.removesuffix(".gz") if "plain" in form else packed)
    if "renamed" in form:
        target = folder / "cifar (1).tgz"
    target.write_bytes(archive(files, "w" if "plain" in form else "w:gz"))
    return target if "itself" in form else folder


def same(found, name, train, test):
    """In TFDS's order, whose rule is written down here once more."""
    for part, split, (labels, images) in (("train", found.train, train), ("test", found.test, test)):
        keys = {hashlib.md5(f"{part}{i}".encode()).hexdigest(): i for i in range(len(labels))}
        order = [keys[key] for key in sorted(keys)]
        np.testing.assert_array_equal(split.labels, labels[order])
        np.testing.assert_array_equal(split.images, images[order])
        assert (split.images.dtype, split.labels.dtype) == (np.uint8, np.int32)
    assert found.classes == cifar.SETS[name].classes and found.num_classes == len(found.classes)


FORMS = ["binary", "binary itself", "python", "python itself", "binary archive", "python archive itself",
         "python archive plain", "binary archive renamed itself"]  # fmt: skip


@pytest.mark.parametrize("form", FORMS)
def test_every_form_gives_the_same_examples(form, original, tmp_path):
    name, train, test = original
    place = written(form, name, train, test, tmp_path)
    found = load_cifar(name, str(place))
    same(found, name, train, test)
    assert found.source.startswith("Python version in" if "python" in form else "binary version in")
    assert str(tmp_path) in found.source


def test_the_order_is_that_of_tfds(original, tmp_path, monkeypatch):
    """TFDS itself orders the examples, by the keys that its CIFAR has, through its public interface."""
    import tensorflow_datasets as tfds

    name, train, test = original

    class Builder(tfds.core.GeneratorBasedBuilder, skip_registration=True):
        VERSION = tfds.core.Version("3.0.2")

        def _info(self):
            label = tfds.features.ClassLabel(num_classes=len(cifar.SETS[name].classes))
            features = {"image": tfds.features.Image(shape=(32, 32, 3)), "label": label}
            return tfds.core.DatasetInfo(builder=self, features=tfds.features.FeaturesDict(features))

        def _split_generators(self, dl_manager):
            return {"train": self._generate_examples(train), "test": self._generate_examples(test)}

        def _generate_examples(self, split):
            for index, (label, image) in enumerate(zip(*split, strict=True)):
                yield index, {"image": Image.fromarray(image), "label": int(label)}

    Builder.name = name
    builder = Builder(data_dir=str(tmp_path), file_format="array_record")
    builder.download_and_prepare()
    assert "tensorflow" not in sys.modules
    for place in (tmp_path, tmp_path / name, Path(builder.data_dir)):
        found = load_cifar(name, str(place))
        same(found, name, train, test)
        assert found.source == f"TFDS 3.0.2 in {builder.data_dir}"
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path))  # its own directory, where nothing is to be downloaded
    monkeypatch.setattr(sources, "download", lambda *_: pytest.fail("a download"))
    same(load_cifar(name), name, train, test)


def test_the_class_names_are_the_published_ones():
    groups = [group.split() for group in SUPERCLASSES.split("/")]
    assert [len(group) for group in groups] == [5] * 20
    assert cifar.SETS["cifar100"].classes == tuple(sorted(sum(groups, [])))
    assert " ".join(cifar.SETS["cifar10"].classes) == "airplane automobile bird cat deer dog frog horse ship truck"


DAMAGES = {
    "missing": (lambda f: f.unlink(), "{file} cannot be read: No such file"),
    "cut short": (lambda f: f.write_bytes(f.read_bytes()[:-1]), "{file} has 30,729 bytes and not 30,730, 10 records"),
    "longer": (lambda f: f.write_bytes(f.read_bytes() + b"x"), "{file} has 30,731 bytes and not 30,730"),
    "a page": (lambda f: f.write_bytes(b"<html>404</html>"), "{file} has 16 bytes .* is no file of CIFAR's binary"),
    "labels": (
        lambda f: f.write_bytes(b"\xc8" * 30730),
        "50 train images with labels up to 200, and cifar10 has 50 of",
    ),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_damaged_binary_files_are_named(damage, small, tmp_path):
    place = written("binary itself", "cifar10", examples("cifar10", TRAIN, 1), examples("cifar10", TEST, 2), tmp_path)
    change, message = DAMAGES[damage]
    change(place / "data_batch_3.bin")
    with pytest.raises(UserError, match=message.format(file="data_batch_3.bin")) as raised:
        load_cifar("cifar10", str(tmp_path))
    assert "\n" not in str(raised.value) and str(tmp_path) in str(raised.value)


class Evil:
    """Unpickled, it would end the test run."""

    def __reduce__(self):
        return exec, ("import os; os._exit(3)",)


IMAGES = np.arange(10 * 3072, dtype=np.int64).astype(np.uint8).reshape(10, 3072)
LABELS = list(range(10))


@pytest.mark.parametrize(
    ("content", "message"),
    {
        "another key": (python2_pickle({"label": LABELS, "data": IMAGES}), "it has no 'labels'"),
        "no images": (python2_pickle({"labels": LABELS, "x": "a" * 3000 * 11}), "its images are not one array"),
        "fewer labels": (python2_pickle({"labels": LABELS[:7], "data": IMAGES}), "it has 7 labels for 10 images"),
        "two arrays": (python2_pickle({"labels": LABELS, "data": IMAGES, "more": IMAGES[:2]}), "not one array"),
        "columns": (python2_pickle({"labels": LABELS, "data": IMAGES}).replace(b"\x89T", b"\x88T"), "by rows"),
        "cut short": (python2_pickle({"labels": LABELS, "data": IMAGES})[:-9], "damaged"),
        "cut within pixels": (python2_pickle({"labels": LABELS, "data": IMAGES})[:30_800], "damaged"),
        "no pickle": (bytes(31_000), "damaged"),
        "text": (b"<html>" * 6000, "damaged"),
        "an object": (pickle.dumps([Evil(), b"x" * 31_000], 2), "its images are not one array"),
        "protocol 5": (pickle.dumps({"labels": LABELS, "data": IMAGES}, 5), "it has no images"),
        "labels of NumPy": (
            pickle.dumps({"labels": np.arange(10), "data": IMAGES}, 2),
            "it has 1 labels for 10 images",
        ),
        "other labels": (python2_pickle({"labels": [-1] * 10, "data": IMAGES}), "damaged"),
    }.values(),
)
def test_damaged_pickles_are_named_and_nothing_in_them_is_run(content, message, small, tmp_path):
    place = written("python itself", "cifar10", examples("cifar10", TRAIN, 1), examples("cifar10", TEST, 2), tmp_path)
    (place / "data_batch_2").write_bytes(content)
    with pytest.raises(UserError, match=f"data_batch_2 .*({message})") as raised:
        load_cifar("cifar10", str(tmp_path))
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("protocol", [2, 3, 4])
@pytest.mark.parametrize("as_bytes", [False, True])
def test_pickles_of_python_3_are_read_too(protocol, as_bytes, small, tmp_path):
    """Saved anew by somebody; keys are text, or bytes where they were loaded with encoding="bytes"."""
    train, test = examples("cifar100", TRAIN, 1), examples("cifar100", TEST, 2)
    folder = tmp_path / "cifar-100-python"
    folder.mkdir()
    for file, (labels, images) in (("train", train), ("test", test)):
        data = np.ascontiguousarray(images.transpose(0, 3, 1, 2)).reshape(len(images), -1)
        value = {"coarse_labels": (labels % 20).tolist(), "fine_labels": labels.tolist(), "data": data}
        value = {key.encode(): item for key, item in value.items()} if as_bytes else value
        (folder / file).write_bytes(pickle.dumps(value, protocol))
    same(load_cifar("cifar100", str(tmp_path)), "cifar100", train, test)


@pytest.mark.parametrize("damage", ["cut", "flipped", "no archive", "lacks", "other"])
def test_damaged_archives_are_named(damage, small, tmp_path):
    train, test = examples("cifar10", TRAIN, 1), examples("cifar10", TEST, 2)
    files = binary_files("cifar10", train, test)
    if damage == "lacks":
        del files["cifar-10-batches-bin/data_batch_4.bin"]
    data = bytearray(archive(files))
    message = "is not a whole archive of cifar10"
    if damage == "cut":
        del data[len(data) // 2 :]
    elif damage == "flipped":
        data[len(data) // 2] ^= 1
    elif damage == "no archive":
        data, message = bytearray(b"<html>404 Not Found</html>" * 100), "is not a folder, and no archive of cifar10"
    elif damage == "lacks":
        message = "lacks data_batch_4.bin"
    path = tmp_path / ("cifar-10-binary.tar.gz" if damage != "other" else "photos.tar.gz")
    if damage == "other":
        data, message = bytearray(archive({"a.txt": b"a"})), "no archive of cifar10"
    path.write_bytes(data)
    with pytest.raises(UserError, match=message) as raised:
        load_cifar("cifar10", str(path))
    assert "\n" not in str(raised.value) and str(path) in str(raised.value)


@pytest.mark.parametrize("name", ["cifar-10-batches-bin/data_batch_1.bin", "zeros"])
def test_what_an_archive_claims_takes_no_memory(name, small, tmp_path, monkeypatch):
    """The second one is small, and unpacks to more than is read."""
    info = tarfile.TarInfo(name)
    info.size = 2**62 if name != "zeros" else 3 * 2**20
    monkeypatch.setattr(cifar, "MOST_BYTES", 2**20)
    path = tmp_path / "cifar-10-binary.tar.gz"
    path.write_bytes(gzip.compress(info.tobuf(tarfile.GNU_FORMAT) + bytes(3 * 2**20)))
    tracemalloc.start()
    with pytest.raises(UserError, match="is not a whole archive of cifar10: .* claims"):
        load_cifar("cifar10", str(tmp_path))
    assert tracemalloc.get_traced_memory()[1] < 10**7
    path.write_bytes(gzip.compress(bytes(1024) + bytes(3 * 2**20)))
    with pytest.raises(UserError, match="is not a whole archive of cifar10: it unpacks to more than 1,048,576 bytes"):
        load_cifar("cifar10", str(tmp_path))
    assert tracemalloc.get_traced_memory()[1] < 10**7
    tracemalloc.stop()


@pytest.fixture
def copy_of_cifar10(tmp_path):
    shutil.copytree(SHARED, tmp_path / "tfds")
    folder = tmp_path / "tfds/cifar10/3.0.2"
    for path in [tmp_path / "tfds", *(tmp_path / "tfds").rglob("*")]:
        path.chmod(0o755 if path.is_dir() else 0o644)
    return folder


@needs_cifar10
def test_another_file_format_is_said(copy_of_cifar10):
    info = copy_of_cifar10 / "dataset_info.json"
    info.write_text(info.read_text().replace("array_record", "tfrecord"))
    with pytest.raises(UserError, match="array_record"):
        load_cifar("cifar10", str(copy_of_cifar10.parents[1]))


@needs_cifar10
@pytest.mark.parametrize("damage", ["missing", "truncated", "info"])
def test_a_damaged_set_is_said(copy_of_cifar10, damage):
    shard = copy_of_cifar10 / "cifar10-train.array_record-00002-of-00004"
    if damage == "missing":
        shard.unlink()
    elif damage == "info":
        (copy_of_cifar10 / "dataset_info.json").write_text("{")
    else:
        shard.write_bytes(shard.read_bytes()[:100_000])
    with pytest.raises(UserError, match="cifar10"):
        load_cifar("cifar10", str(copy_of_cifar10.parents[1]))
