"""Feeds steps with images and their masks: crops to train on, whole images in few padded shapes to evaluate on."""

import dataclasses
import functools
from collections.abc import Iterator, Sequence
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P
from ml_collections import ConfigDict

from resnet_jax.data.augment import Augmentation, augmented, normalize
from resnet_jax.data.buckets import PaddedBatch, padded_batches, without_padding
from resnet_jax.data.imagenet.loaders import AHEAD, one_ahead
from resnet_jax.data.placement import place, rows_here
from resnet_jax.data.sampling import batch_numbers
from resnet_jax.data.segmentation.loaders import PairTestLoader, PairTrainLoader
from resnet_jax.data.segmentation.sources import open_pairs
from resnet_jax.data.streaming import Normalizer, Streamed, normalization_of


@dataclasses.dataclass(frozen=True)
class SegmentationBatches:
    """Makes batches inside the jitted step; it holds no data.

    Attributes:
      augmentation: changes of colour of training images; what moves pixels is done with the mask, on the host.
    """

    augmentation: Augmentation

    #: Images of several steps would fill the host and the devices.
    steps_per_dispatch: ClassVar[int] = 1

    def train_batch(self, resident: Normalizer, inputs: Any, key: Array) -> tuple[Array, Array]:
        """Returns augmented images (batch, size, size, 3) and labels (batch, size, size)."""
        return augmented(self.augmentation, resident, inputs["images"], key), inputs["labels"].astype(jnp.int32)

    def eval_batch(self, resident: Normalizer, inputs: Any) -> tuple[Array, Array]:
        """Returns normalised images (batch, height, width, 3), zero beyond each one's size, and labels."""
        images = normalize(inputs["images"], resident["mean"], resident["std"])
        return without_padding(images, inputs["sizes"]), inputs["labels"].astype(jnp.int32)

    def input_shapes(self, shape: tuple[int, ...], side: int) -> Any:
        """Returns the shapes of what is sent for examples of `shape`, (batch,) or (steps, batch), of `side` pixels."""
        images = jax.ShapeDtypeStruct((*shape, side, side, 3), jnp.uint8)
        found = {"images": images, "labels": jax.ShapeDtypeStruct((*shape, side, side), jnp.uint8)}
        if len(shape) == 1:
            found["sizes"] = jax.ShapeDtypeStruct((*shape, 2), jnp.int32)
        return found


@dataclasses.dataclass(frozen=True)
class SegmentationPipeline(SegmentationBatches, Streamed):
    """Feeds steps with images that are decoded meanwhile; the methods are those of `ResidentPipeline`.

    Attributes:
      train, test: what images are normalised by, on the devices.
      train_loader, test_loader: decode the images.
      test_batches: what is evaluated.
      mesh: devices that share a batch.
      image_shape: (height, width, channels) of training crops.
      batch_size: examples in a batch, over all devices.
      classes: names of the classes, by label.
      evaluated_on: what the test images are: "test", "validation" or "held_out".
      remarks: sentences on files of the set that were left out.
      source: what the images are read from.
    """

    train: Normalizer
    test: Normalizer
    train_loader: PairTrainLoader
    test_loader: PairTestLoader
    test_batches: tuple[PaddedBatch, ...]
    mesh: Mesh
    image_shape: tuple[int, int, int]
    batch_size: int
    classes: tuple[str, ...]
    evaluated_on: str
    remarks: tuple[str, ...]
    source: str

    #: Images are evaluated whole.
    shorter_side: ClassVar[int | None] = None

    #: Steps at which the size of images changes.
    size_changes: ClassVar[tuple[int, ...]] = ()

    @functools.cached_property
    def fingerprint(self) -> str:
        """Of the training and of the test images; see `sources.PairSource`."""
        return self.train_loader.pairs.fingerprint() + self.test_loader.pairs.fingerprint()

    @property
    def seed(self) -> int:
        """Seed of the order of examples and of crops."""
        return self.train_loader.seed

    @property
    def num_classes(self) -> int:
        """Number of classes."""
        return len(self.classes)

    def train_inputs(self, step: int, count: int, skipped: Sequence[int] = ()) -> dict[str, np.ndarray]:
        """Returns what this process sends for `count` steps from `step` on, (count, rows, ...), and begins the next."""
        numbers = batch_numbers(range(step, step + count + AHEAD), skipped)
        images, labels = self.train_loader.batches(numbers[:count], numbers[count:])
        return {"images": images, "labels": labels}

    def test_inputs(self) -> Iterator[tuple[dict[str, np.ndarray], np.ndarray]]:
        """Yields (inputs, mask) of every batch of the test set; each example has mask 1 once."""
        rows = [slice(*rows_here(self.mesh, len(batch.indices))) for batch in self.test_batches]
        begun = ((self.test_loader.begin(batch, here), batch.mask[here])
                 for batch, here in zip(self.test_batches, rows, strict=True))  # fmt: skip
        for pending, mask in one_ahead(begun):
            yield pending.result(), mask


def colours_alone(data: ConfigDict) -> Augmentation:
    """Returns the augmentation of `config.data` that moves no pixel."""
    return dataclasses.replace(Augmentation.of_config(data), padding=0, flip=False)


def make_segmentation(config: ConfigDict, mesh: Mesh) -> SegmentationPipeline:
    """Opens a set of images with masks and starts the threads that decode it.

    Raises:
      UserError: for a set that cannot be read, and for fields that it cannot have.
    """
    data = config.data
    splits = open_pairs(data)
    mean, std = normalization_of(data)
    normalizer: Normalizer = place({"mean": mean, "std": std}, NamedSharding(mesh, P()))
    loader = PairTrainLoader(
        splits.train, seed=config.seed, batch_size=config.batch_size, rows=rows_here(mesh, config.batch_size),
        size=data.image_size, scale=tuple(data.scale), scale_from=data.scale_from, flip=data.flip,
        fill=tuple(int(round(255 * float(value))) for value in mean), workers=data.workers, repeats=data.repeats,
    )  # fmt: skip
    test_loader = PairTestLoader(splits.test, loader.unreadable, data.workers)
    return SegmentationPipeline(
        colours_alone(data), normalizer, normalizer, loader, test_loader,
        tuple(padded_batches(test_loader.sizes(), mesh)), mesh, (data.image_size, data.image_size, 3),
        config.batch_size, splits.train.classes, splits.evaluated_on, splits.remarks,
        str(data.data_dir or data.folder),
    )  # fmt: skip
