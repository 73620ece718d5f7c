"""Small sets on their way into the step: uint8 images live on every device, indices are all that a step sends."""

import dataclasses
from collections.abc import Iterator, Sequence
from typing import Any, ClassVar, TypedDict

import numpy as np
from jax import Array
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from resnet_jax.data.augment import normalization, normalize
from resnet_jax.data.augmentation import Augmentation, augmented
from resnet_jax.data.colour import check_rgb, colour_basis
from resnet_jax.data.dataset import Dataset, Split
from resnet_jax.data.placement import place
from resnet_jax.data.rand_augment import RandAugment
from resnet_jax.data.sampling import batch_indices, batch_numbers, padded_batches
from resnet_jax.errors import UserError

#: Images of one evaluation batch, before it is rounded up to a multiple of the devices.
EVAL_BATCH = 500


class Resident(TypedDict):
    """One split on the devices, and what its images are normalised by."""

    images: Array
    labels: Array
    mean: Array
    std: Array


@dataclasses.dataclass(frozen=True)
class ResidentPipeline:
    """A data set on the devices.

    Attributes:
      train, test: the splits, whole on each device of the mesh.
      train_size, test_size: their numbers of examples.
      seed: seed of the order of examples.
      batch_size: examples in a training batch, over all devices.
      eval_batch_size: examples in an evaluation batch, over all devices.
      augmentation: what is done to training images.
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
    augmentation: Augmentation
    repeats: int = 1
    evaluated_on: str = "test"

    #: Steps at which the size of images changes.
    size_changes: ClassVar[tuple[int, ...]] = ()
    #: Where the host would else hold up a fast device; indices take no room.
    steps_per_dispatch: ClassVar[int] = 100

    @property
    def image_shape(self) -> tuple[int, ...]:
        """(height, width, channels)."""
        return self.train["images"].shape[1:]

    def send(self, inputs: Any, sharding: NamedSharding) -> Any:
        """Puts inputs, whole and alike in every process, on the devices."""
        return place(inputs, sharding)

    def warnings(self) -> list[str]:
        """Sentences on images that could not be read: none."""
        return []

    def train_inputs(self, step: int, count: int, skipped: Sequence[int] = ()) -> np.ndarray:
        """What the host sends for `count` steps from `step` on: indices, int32, (count, batch_size).

        Batches whose numbers are in `skipped` are left out; see `sampling.batch_numbers`.
        """
        numbers = batch_numbers(range(step, step + count), skipped)
        size, examples = self.batch_size, self.train_size
        return np.stack([batch_indices(self.seed, number, size, examples, self.repeats) for number in numbers])

    def train_batch(self, resident: Resident, indices: Array, key: Array) -> tuple[Array, Array]:
        """In the jitted step: augmented images (batch, height, width, channels), labels (batch,)."""
        return augmented(self.augmentation, resident, resident["images"][indices], key), resident["labels"][indices]

    def eval_batch(self, resident: Resident, indices: Array) -> tuple[Array, Array]:
        """In the jitted step: normalised images (batch, height, width, channels), labels (batch,)."""
        images = normalize(resident["images"][indices], resident["mean"], resident["std"])
        return images, resident["labels"][indices]

    def test_inputs(self) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """(indices, mask) of every batch of the test set; each example has mask 1 once."""
        return padded_batches(self.test_size, self.eval_batch_size)


def make_pipeline(dataset: Dataset, mesh: Mesh, *, seed: int, batch_size: int, normalization_kind: str, padding: int,
                  flip: bool, colour_pca: float = 0.0, random_erasing: float = 0.0,
                  rand_augment: RandAugment | None = None, repeats: int = 1, colour_jitter: float = 0.0,
                  given: tuple[Sequence[float], Sequence[float]] = ((), ())) -> ResidentPipeline:  # fmt: skip
    """Puts a data set on every device of the mesh.

    With the normalisation "weights", mean and deviation are `given`, a number for each channel. With "imagenet",
    colours shift along ImageNet's published components, else along the training set's own.

    Raises:
      UserError: for an unknown normalisation, padding that exceeds the image, or colours of grey images.
    """
    if padding > min(dataset.image_shape[:2]):
        raise UserError(f"config.data.padding={padding} is more than the images' {dataset.image_shape[0]} pixels")
    if colour_jitter:
        check_rgb("colour_jitter", dataset.image_shape[2])
    if normalization_kind == "weights":
        mean, std = (np.array(values, np.float32) for values in given)
        if mean.shape != dataset.image_shape[2:]:
            raise UserError(f"the weights of config.init_from are for images of {len(mean)} channel(s), and those of "
                            f"{dataset.name} have {dataset.image_shape[2]}; config.data.rgb=True makes RGB of grey "
                            "images")  # fmt: skip
    else:
        mean, std = normalization(normalization_kind, dataset.train.images)
    basis = None
    if colour_pca:
        basis = colour_basis(None if normalization_kind == "imagenet" else dataset.train.images)
    everywhere = NamedSharding(mesh, P())

    def resident(split: Split) -> Resident:
        arrays = Resident(images=split.images, labels=split.labels, mean=mean, std=std)  # type: ignore[typeddict-item]
        return place(arrays, everywhere)

    per_device = -(-min(EVAL_BATCH, len(dataset.test)) // mesh.size)
    return ResidentPipeline(
        resident(dataset.train), resident(dataset.test), len(dataset.train), len(dataset.test),
        seed, batch_size, per_device * mesh.size,
        Augmentation(padding, flip, colour_pca, basis, random_erasing, rand_augment, colour_jitter),
        repeats, dataset.evaluated_on,
    )  # fmt: skip
