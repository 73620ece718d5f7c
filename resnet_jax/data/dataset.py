"""Small data sets: two splits of uint8 images with labels."""

import dataclasses
import hashlib

import cv2
import numpy as np

from resnet_jax.data.held_out_split import stratified_split
from resnet_jax.errors import UserError


@dataclasses.dataclass(frozen=True)
class Split:
    """Holds images with labels.

    Attributes:
      images: uint8, (n, height, width, channels).
      labels: int32, (n,), from 0 to num_classes - 1.
    """

    images: np.ndarray
    labels: np.ndarray

    def __len__(self) -> int:
        return len(self.labels)

    def take(self, indices: np.ndarray) -> "Split":
        """Returns the examples at the given indices, in their order."""
        return Split(self.images[indices], self.labels[indices])


@dataclasses.dataclass(frozen=True)
class Dataset:
    """Holds a set that is small enough for the memory of every device.

    Attributes:
      name: its name in `config.data.name`.
      train: examples to train on.
      test: examples to evaluate on; with a held-out part, that part.
      num_classes: number of classes.
      classes: their names, by label; empty if they have none.
      evaluated_on: what `test` is: "test", "validation" or "held_out".
      source: what it was read from; empty for sets that need no files.
    """

    name: str
    train: Split
    test: Split
    num_classes: int
    classes: tuple[str, ...] = ()
    evaluated_on: str = "test"
    source: str = ""

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(height, width, channels)."""
        height, width, channels = self.train.images.shape[1:]
        return height, width, channels


def fingerprint(dataset: Dataset) -> str:
    """Returns 24 hexadecimal digits, of training and of testing, that change with images, their order, or a label.

    Of each image the middle row of pixels stands for all of them.
    """

    def digits(split: Split) -> str:
        found = hashlib.sha256(str(split.images.shape).encode())
        for array in (split.labels, split.images[:, split.images.shape[1] // 2]):
            found.update(np.ascontiguousarray(array).data)
        return found.hexdigest()[:12]

    return digits(dataset.train) + digits(dataset.test)


def hold_out(dataset: Dataset, count: int, share: float = 0.0) -> Dataset:
    """Holds out `count` training examples, or without a count a share of each class, to be evaluated on.

    The 2015 paper chose its schedule on a 45k/5k split of CIFAR-10 (section 4.2). The split does not depend on the
    run's seed, so that runs can be compared. For a share see `held_out_split.stratified_split`, whose names are the
    images' indices here.

    Raises:
      UserError: for more than there are, and for a class that is too small to be shared.
    """
    if not 0 <= count < len(dataset.train):
        raise UserError(
            f"config.data.held_out={count} must be 0 or more and below {len(dataset.train)} for {dataset.name}"
        )
    train = dataset.train
    if count:
        order = np.random.Generator(np.random.Philox(0)).permutation(len(train))
        kept, held = np.sort(order[count:]), np.sort(order[:count])
    else:
        classes = dataset.classes or tuple(map(str, range(dataset.num_classes)))
        kept, held = stratified_split([str(i) for i in range(len(train))], train.labels, share, classes)
    return dataclasses.replace(dataset, train=train.take(kept), test=train.take(held), evaluated_on="held_out")


def resized(dataset: Dataset, size: int, rgb: bool) -> Dataset:
    """Returns the set with images of another size or of three channels, as a net trained on other images may need.

    Args:
      dataset: the set.
      size: pixels of a side; 0: unchanged. Images grow linearly and shrink by averaging.
      rgb: whether grey images get three equal channels.

    Raises:
      UserError: for `rgb` and images that are neither grey nor RGB.
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
