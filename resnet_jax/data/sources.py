"""Where small data sets come from: scikit-learn's digits, TFDS without TensorFlow, random images."""

import functools
import logging
import socket
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from resnet_jax.data.dataset import Dataset, Split, hold_out
from resnet_jax.errors import UserError, unknown_name

#: Where TFDS downloads CIFAR from.
CIFAR_HOST = "www.cs.toronto.edu"

#: scikit-learn's 1,797 digits in their order: the last fifth was written by people that training has not seen.
DIGITS_TRAIN = 1437


def load_digits() -> Dataset:
    """scikit-learn's handwritten digits: 1,797 grey images of 8x8 pixels, 10 classes; comes with scikit-learn."""
    from sklearn import datasets

    digits = datasets.load_digits()
    images = np.rint(digits.images * (255 / 16)).astype(np.uint8)[..., None]  # pixels are counts from 0 to 16
    everything = Split(images, digits.target.astype(np.int32))
    train, test = (everything.take(part) for part in np.split(np.arange(len(everything)), [DIGITS_TRAIN]))
    return Dataset("digits", train, test, 10)


def load_synthetic(size: int = 32, classes: int = 10, train: int = 1024, test: int = 256) -> Dataset:
    """Random images whose brightness pattern depends on the class: learnable, and made anywhere in no time."""
    rng = np.random.Generator(np.random.Philox(0))
    patterns = rng.uniform(64, 192, (classes, size, size, 3))

    def split(count: int) -> Split:
        labels = (np.arange(count) % classes).astype(np.int32)
        noise = rng.normal(0, 48, (count, size, size, 3))
        return Split(np.clip(patterns[labels] + noise, 0, 255).astype(np.uint8), labels)

    return Dataset("synthetic", split(train), split(test), classes)


def load_tfds(name: str, data_dir: str | None = None) -> Dataset:
    """CIFAR-10 or CIFAR-100 through tensorflow-datasets, without TensorFlow.

    Args:
      name: "cifar10" or "cifar100".
      data_dir: a TFDS data directory that holds the prepared set. If None, TFDS's own directory
        (`~/tensorflow_datasets`, or `TFDS_DATA_DIR`), where the set is downloaded and prepared on first use.

    Raises:
      UserError: if `data_dir` does not hold the set, or the download fails.
    """
    if data_dir is not None and not Path(data_dir).expanduser().is_dir():
        raise UserError(f"config.data.data_dir={data_dir} is not a folder; give a TFDS data directory that has {name}")
    import tensorflow_datasets as tfds

    # TFDS recommends OpenCV through absl at each read; Pillow decodes 60,000 small PNGs in ten seconds.
    logging.getLogger("absl").setLevel(logging.ERROR)
    directory = None if data_dir is None else Path(data_dir).expanduser()
    # array_record is the one format that TFDS both prepares and reads at random without TensorFlow.
    builder = tfds.builder(name, data_dir=directory, file_format="array_record")
    if not builder.is_prepared():
        if data_dir is not None:
            raise UserError(
                f"config.data.data_dir={data_dir} holds no prepared {name} (looked for {name}/{builder.version}); "
                "give a TFDS data directory that has it, or leave the field out to download it"
            )
        _download(builder)
    splits = {split: _read(builder.as_data_source(split), builder.info.splits[split].num_examples)
              for split in ("train", "test")}  # fmt: skip
    return Dataset(name, splits["train"], splits["test"], builder.info.features["label"].num_classes)


def _download(builder: Any) -> None:
    """Downloads and prepares a set into TFDS's own directory, with TFDS's progress bars."""
    try:
        if not urllib.request.getproxies():
            # TFDS retries ten times, over three minutes, where there is no network at all.
            socket.getaddrinfo(CIFAR_HOST, 443)
        builder.download_and_prepare()
    except Exception as error:  # TFDS raises a different type for each way in which a download can fail
        reason = " ".join(str(error).split())[:200]
        raise UserError(
            f"cannot download {builder.name} ({type(error).__name__}: {reason}); prepare it where there is a network "
            "with tensorflow-datasets (file_format='array_record') and pass --config.data.data_dir=DIR"
        ) from error


def _read(source: Any, expected: int) -> Split:
    """Reads a whole TFDS data source into memory."""
    if len(source) != expected:
        raise UserError(f"the prepared set has {len(source)} records where its info says {expected}: prepare it anew")
    records = source.__getitems__(range(expected))
    return Split(np.stack([r["image"] for r in records]), np.array([r["label"] for r in records], np.int32))


SOURCES: dict[str, Callable[[str | None], Dataset]] = {
    "digits": lambda data_dir: load_digits(),
    "synthetic": lambda data_dir: load_synthetic(),
    "cifar10": lambda data_dir: load_tfds("cifar10", data_dir),
    "cifar100": lambda data_dir: load_tfds("cifar100", data_dir),
}


@functools.lru_cache(maxsize=2)  # several runs in one process, as in an ablation, read it once
def load_dataset(name: str, data_dir: str | None = None, held_out: int = 0) -> Dataset:
    """A set by name, with `held_out` training examples in the place of the test set if that is not 0.

    Raises:
      UserError: for an unknown name, a directory without the set, or more held out than there is.
    """
    if name not in SOURCES:
        raise unknown_name("dataset", name, SOURCES)
    dataset = SOURCES[name](data_dir)
    if not 0 <= held_out < len(dataset.train):
        raise UserError(f"config.data.held_out={held_out} must be 0 or more and below {len(dataset.train)} for {name}")
    return hold_out(dataset, held_out) if held_out else dataset
