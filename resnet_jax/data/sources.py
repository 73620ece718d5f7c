"""Small data sets by name: scikit-learn's digits, TFDS, random images."""

import functools
import importlib.util
from collections.abc import Callable
from pathlib import Path

import numpy as np

from resnet_jax.data.dataset import Dataset, Split, hold_out, resized
from resnet_jax.data.held_out_split import choose_split
from resnet_jax.data.imagenet import STREAMED, TFDS
from resnet_jax.data.tfds import load_cifar, open_tfds
from resnet_jax.errors import UserError, unknown_name

#: The first four fifths of scikit-learn's 1,797 digits, in its order.
DIGITS_TRAIN = 1437


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
      data_dir: a TFDS data directory; None for TFDS's own.
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
