"""Small data sets by name: scikit-learn's digits, CIFAR, TFDS, random images."""

import dataclasses
import functools
import importlib.util
from collections.abc import Callable
from pathlib import Path

import numpy as np

from resnet_jax.data.cifar import SETS, find_cifar, is_archive
from resnet_jax.data.dataset import Dataset, Split, hold_out, resized
from resnet_jax.data.download import download, download_folder
from resnet_jax.data.held_out_split import choose_split
from resnet_jax.data.imagenet import STREAMED, TFDS
from resnet_jax.data.tfds import TfdsSet, find_prepared, open_tfds
from resnet_jax.errors import UserError, unknown_name

#: The first four fifths of scikit-learn's 1,797 digits, in its order.
DIGITS_TRAIN = 1437

#: Where the archives of CIFAR lie.
CIFAR_PAGE = "https://www.cs.toronto.edu/~kriz"


def load_digits() -> Dataset:
    """Loads scikit-learn's handwritten digits: 1,797 grey images of 8x8 pixels, 10 classes."""
    # Its own loader imports all of scikit-learn, which takes longer than everything else before the first step.
    spec = importlib.util.find_spec("sklearn")
    assert spec is not None and spec.submodule_search_locations, "requirements.txt has it"
    file = Path(spec.submodule_search_locations[0], "datasets", "data", "digits.csv.gz")
    table = np.loadtxt(file, dtype=np.uint8, delimiter=",")  # 64 pixels and a label
    images = np.rint(table[:, :64] * (255 / 16)).astype(np.uint8)  # pixels are counts from 0 to 16
    everything = Split(images.reshape(-1, 8, 8, 1), table[:, 64].astype(np.int32))
    train, test = (everything.take(part) for part in np.split(np.arange(len(everything)), [DIGITS_TRAIN]))
    return Dataset("digits", train, test, 10, tuple("0123456789"))


def load_synthetic(size: int = 32, classes: int = 10, train: int = 1024, test: int = 256) -> Dataset:
    """Makes random images whose brightness pattern depends on the class, so that they can be learned."""
    rng = np.random.Generator(np.random.Philox(0))
    patterns = rng.uniform(64, 192, (classes, size, size, 3))

    def split(count: int) -> Split:
        labels = (np.arange(count) % classes).astype(np.int32)
        noise = rng.normal(0, 48, (count, size, size, 3))
        return Split(np.clip(patterns[labels] + noise, 0, 255).astype(np.uint8), labels)

    return Dataset("synthetic", split(train), split(test), classes)


def load_cifar(name: str, data_dir: str | None = None) -> Dataset:
    """Loads CIFAR-10 or CIFAR-100.

    Args:
      name: "cifar10" or "cifar100".
      data_dir: what holds it: the binary or the Python version, packed or unpacked, or a TFDS data directory. If None,
        TFDS's own directory if it has the set, or else the binary version, downloaded into the user's cache on first
        use.

    Raises:
      UserError: if it is not there, is damaged, or the download fails.
    """
    place = None if data_dir is None else Path(data_dir).expanduser()
    if place is None:
        if (prepared := find_prepared(name, None)) is not None:
            return _with_names(prepared)
        place = _downloaded(name)
    elif not place.exists():
        raise UserError(f"config.data.data_dir={data_dir} is not a folder; give one that has {name}")
    found = find_cifar(name, place) if place.is_dir() or is_archive(place) else None
    if found is not None:
        return found
    if place.is_dir() and (prepared := find_prepared(name, place)) is not None:
        return _with_names(prepared)
    what = "holds no" if place.is_dir() else "is not a folder, and no archive of"
    names = [name for version in (SETS[name].binary, SETS[name].python) for name in (version.folder, version.archive)]
    raise UserError(
        f"config.data.data_dir={data_dir} {what} {name} (looked for {', '.join(names)} and TFDS's {name}/); give a "
        "folder that does, or leave the field out to download it"
    )


def _downloaded(name: str) -> Path:
    """Returns the archive of the binary version in the user's cache, and downloads it if it is not there."""
    binary = SETS[name].binary
    path = download_folder() / binary.archive
    try:
        download(f"{CIFAR_PAGE}/{binary.archive}", path, binary.md5)
    except UserError as error:
        raise UserError(
            f"cannot download {name}: {error}; put {binary.archive} into a folder and pass --config.data.data_dir=DIR"
        ) from error
    return path


def _with_names(prepared: TfdsSet) -> Dataset:
    """Reads a set that TFDS has prepared. Its classes are in the published order, but may have no names."""
    dataset, known = prepared.load("test"), SETS[prepared.name].classes
    if dataset.num_classes != len(known):
        raise UserError(f"{dataset.source} has {dataset.num_classes} classes, and {prepared.name} has {len(known)}")
    return dataclasses.replace(dataset, classes=known)


SOURCES: dict[str, Callable[[str | None], Dataset]] = {
    "digits": lambda data_dir: load_digits(),
    "synthetic": lambda data_dir: load_synthetic(),
    "cifar10": lambda data_dir: load_cifar("cifar10", data_dir),
    "cifar100": lambda data_dir: load_cifar("cifar100", data_dir),
}

#: Sets that need no files.
BUILT_IN = ("digits", "synthetic")


@functools.lru_cache(maxsize=2)  # several runs in one process read it once
def load_dataset(name: str, data_dir: str | None = None, held_out: int = 0, share: float = 0.0,
                 eval_split: str = "auto", resize: int = 0, rgb: bool = False) -> Dataset:  # fmt: skip
    """Loads a set by name.

    Args:
      name: one of SOURCES, or "tfds:NAME".
      data_dir: for CIFAR, see `load_cifar`; otherwise a TFDS data directory, None for TFDS's own.
      held_out: how many training examples to evaluate on instead of the test set; 0: none.
      share: of each class to evaluate on, where there is no test or validation set, or where `eval_split` says so.
      eval_split: see `held_out_split.choose_split`.
      resize, rgb: see `dataset.resized`.

    Raises:
      UserError: for an unknown name, a directory without the set, or more held out than there is.
    """
    found = open_tfds(name, data_dir) if name.startswith(TFDS) else None
    if found is None and name not in SOURCES:
        raise unknown_name("dataset", name, [*SOURCES, *STREAMED, "tfds:NAME"])
    if data_dir is not None and name in BUILT_IN:
        raise UserError(f"config.data.data_dir={data_dir} is not for {name}, which needs no files; leave it out")
    wanted = "held_out" if held_out else eval_split
    evaluated_on = choose_split(name, found.others if found else {"test"}, wanted, bool(held_out or share))
    dataset = found.load(evaluated_on) if found else SOURCES[name](data_dir)
    if evaluated_on == "held_out":
        dataset = hold_out(dataset, held_out, share)
    return resized(dataset, resize, rgb)
