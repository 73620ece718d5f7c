"""What a small data set is: two splits of uint8 images with labels."""

import dataclasses

import numpy as np


@dataclasses.dataclass(frozen=True)
class Split:
    """Images with labels.

    Attributes:
      images: uint8, (n, height, width, channels).
      labels: int32, (n,), from 0 to num_classes - 1.
    """

    images: np.ndarray
    labels: np.ndarray

    def __len__(self) -> int:
        return len(self.labels)

    def take(self, indices: np.ndarray) -> "Split":
        """The examples at the given indices, in their order."""
        return Split(self.images[indices], self.labels[indices])


@dataclasses.dataclass(frozen=True)
class Dataset:
    """A set small enough to live in memory, on every device.

    Attributes:
      name: its name in `config.data.name`.
      train: examples to train on.
      test: examples to evaluate on; with a held-out part, that part.
      num_classes: number of classes.
      classes: their names, by label; empty if they have none.
    """

    name: str
    train: Split
    test: Split
    num_classes: int
    classes: tuple[str, ...] = ()

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(height, width, channels)."""
        height, width, channels = self.train.images.shape[1:]
        return height, width, channels


def hold_out(dataset: Dataset, count: int) -> Dataset:
    """Sets `count` training examples aside and evaluates on them instead of the test set.

    The 2015 paper chose its schedule on a 45k/5k split of CIFAR-10 (section 4.2). Which examples are held out is
    one fixed permutation, whatever the run's seed, so that runs can be compared.
    """
    order = np.random.Generator(np.random.Philox(0)).permutation(len(dataset.train))
    kept, held = np.sort(order[count:]), np.sort(order[:count])
    return dataclasses.replace(dataset, train=dataset.train.take(kept), test=dataset.train.take(held))
