"""What a small data set is: two splits of uint8 images with labels."""

import dataclasses

import cv2
import numpy as np

from resnet_jax.data.held_out_split import stratified_split
from resnet_jax.errors import UserError


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
      evaluated_on: what `test` is: "test", "validation" or "held_out".
    """

    name: str
    train: Split
    test: Split
    num_classes: int
    classes: tuple[str, ...] = ()
    evaluated_on: str = "test"

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
    return _parted(dataset, kept, held)


def hold_out_share(dataset: Dataset, share: float) -> Dataset:
    """Like `hold_out`, with a share of each class; see `held_out_split.stratified_split`, by the images' places.

    Raises:
      UserError: for a class with fewer than two images.
    """
    labels = dataset.train.labels
    classes = dataset.classes or tuple(map(str, range(dataset.num_classes)))
    return _parted(dataset, *stratified_split([str(i) for i in range(len(labels))], labels, share, classes))


def _parted(dataset: Dataset, kept: np.ndarray, held: np.ndarray) -> Dataset:
    return dataclasses.replace(
        dataset, train=dataset.train.take(kept), test=dataset.train.take(held), evaluated_on="held_out"
    )


def fitted(dataset: Dataset, size: int, rgb: bool) -> Dataset:
    """The set with images of another size and of three channels, as a net may need that has been trained on others.

    Args:
      dataset: the set.
      size: pixels of a side; 0: as they are. Images grow linearly and shrink by averaging.
      rgb: whether grey images get three channels alike.

    Raises:
      UserError: if there is nothing to repeat: neither grey nor RGB.
    """
    channels = dataset.image_shape[2]
    if rgb and channels not in (1, 3):
        raise UserError(f"config.data.rgb is for grey images; those of {dataset.name} have {channels} channels")

    def fit(split: Split) -> Split:
        images = split.images
        if size and images.shape[1:3] != (size, size):
            how = cv2.INTER_AREA if size < min(images.shape[1:3]) else cv2.INTER_LINEAR
            images = np.stack([cv2.resize(image, (size, size), interpolation=how) for image in images])
            images = images.reshape(len(images), size, size, channels)  # OpenCV drops a single channel
        return Split(np.repeat(images, 3, axis=-1) if rgb and channels == 1 else images, split.labels)

    if not (size or rgb):
        return dataset
    return dataclasses.replace(dataset, train=fit(dataset.train), test=fit(dataset.test))
