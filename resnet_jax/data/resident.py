"""Small data sets: their uint8 images live on every device, and a step is sent indices alone."""

import dataclasses
from collections.abc import Iterator, Sequence
from typing import Any, ClassVar, TypedDict

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P
from ml_collections import ConfigDict

from resnet_jax.data.augment import Augmentation, augmented, normalization, normalize
from resnet_jax.data.dataset import Dataset, Split
from resnet_jax.data.placement import eval_batch_size, place
from resnet_jax.data.sampling import batch_indices, batch_numbers, padded_batches
from resnet_jax.errors import UserError


class Resident(TypedDict):
    """One split on the devices, and what its images are normalised by.

    An image is one row, (examples, height * width * channels): laid out in four dimensions, a TPU would copy the whole
    set into another order at every dispatch, to take the images of a batch from it.
    """

    images: Array
    labels: Array
    mean: Array
    std: Array


@dataclasses.dataclass(frozen=True)
class ResidentBatches:
    """Makes batches inside the jitted step.

    It holds no data: a step can be compiled with it from the shapes of a `Resident`.

    Attributes:
      augmentation: what is done to training images.
      image_shape: (height, width, channels).
    """

    augmentation: Augmentation
    image_shape: tuple[int, int, int]

    #: Indices take no room, and the host would hold up a fast device at every step.
    steps_per_dispatch: ClassVar[int] = 100

    def train_batch(self, resident: Resident, indices: Array, key: Array) -> tuple[Array, Array]:
        """Returns augmented images (batch, height, width, channels) and labels (batch,)."""
        images, labels = self._take(resident, indices)
        return augmented(self.augmentation, resident, images, key), labels

    def eval_batch(self, resident: Resident, indices: Array) -> tuple[Array, Array]:
        """Returns normalised images (batch, height, width, channels) and labels (batch,)."""
        images, labels = self._take(resident, indices)
        return normalize(images, resident["mean"], resident["std"]), labels

    def input_shapes(self, shape: tuple[int, ...], side: int) -> Any:
        """Returns the shapes of what is sent for examples of `shape`, (batch,) or (steps, batch): their indices."""
        return jax.ShapeDtypeStruct(shape, jnp.int32)

    def _take(self, resident: Resident, indices: Array) -> tuple[Array, Array]:
        return resident["images"][indices].reshape(-1, *self.image_shape), resident["labels"][indices]


@dataclasses.dataclass(frozen=True)
class ResidentPipeline(ResidentBatches):
    """Feeds steps from a data set on the devices.

    Attributes:
      train, test: the splits, whole on each device of the mesh.
      train_size, test_size: their numbers of examples.
      seed: seed of the order of examples.
      batch_size, eval_batch_size: examples in a batch, over all devices.
      num_classes: number of classes.
      classes: their names, by label; empty if they have none.
      repeats: see `sampling.batch_indices`.
      evaluated_on: what the test images are: "test", "validation" or "held_out".
    """

    train: Resident
    test: Resident
    train_size: int
    test_size: int
    seed: int
    batch_size: int
    eval_batch_size: int
    num_classes: int
    classes: tuple[str, ...] = ()
    repeats: int = 1
    evaluated_on: str = "test"

    #: Steps at which the size of images changes.
    size_changes: ClassVar[tuple[int, ...]] = ()

    def send(self, inputs: Any, sharding: NamedSharding) -> Any:
        """Puts inputs, whole and alike in every process, on the devices."""
        return place(inputs, sharding)

    def warnings(self) -> list[str]:
        """Returns sentences on images that could not be read: none."""
        return []

    def notes(self) -> Iterator[str]:
        """Yields what users should know before the first step: nothing."""
        yield from ()

    def train_inputs(self, step: int, count: int, skipped: Sequence[int] = ()) -> np.ndarray:
        """Returns the indices of `count` steps from `step` on, int32, (count, batch_size).

        Batches whose numbers are in `skipped` are left out; see `sampling.batch_numbers`.
        """
        numbers = batch_numbers(range(step, step + count), skipped)
        size, examples = self.batch_size, self.train_size
        return np.stack([batch_indices(self.seed, number, size, examples, self.repeats) for number in numbers])

    def test_inputs(self) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Yields (indices, mask) of every batch of the test set; each example has mask 1 once."""
        return padded_batches(self.test_size, self.eval_batch_size)


def make_resident(dataset: Dataset, config: ConfigDict, mesh: Mesh) -> ResidentPipeline:
    """Puts a data set on every device of the mesh.

    Raises:
      UserError: for an unknown normalisation, padding that exceeds the image, or colours of grey images.
    """
    data, shape = config.data, dataset.image_shape
    if data.padding > min(shape[:2]):
        raise UserError(f"config.data.padding={data.padding} is more than the images' {shape[0]} pixels")
    augmentation = Augmentation.of_config(data, dataset.train.images)
    if data.normalization == "weights":
        mean, std = (np.array(values, np.float32) for values in (data.mean, data.std))
        if mean.shape != shape[2:]:
            raise UserError(
                f"the weights of config.init_from are for images of {len(mean)} channel(s), and those of "
                f"{dataset.name} have {shape[2]}; config.data.rgb=True makes RGB of grey images"
            )
    else:
        mean, std = normalization(data.normalization, dataset.train.images)

    def resident(split: Split) -> Resident:
        rows = split.images.reshape(len(split), -1)
        arrays = {"images": rows, "labels": split.labels, "mean": mean, "std": std}
        return place(arrays, NamedSharding(mesh, P()))

    return ResidentPipeline(
        augmentation, shape, resident(dataset.train), resident(dataset.test), len(dataset.train), len(dataset.test),
        config.seed, config.batch_size, eval_batch_size(mesh, len(dataset.test)), dataset.num_classes, dataset.classes,
        data.repeats, dataset.evaluated_on,
    )  # fmt: skip
