"""Feeds steps with images and their boxes, in batches of a few sizes."""

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
from resnet_jax.data.buckets import without_padding
from resnet_jax.data.detection.annotations import BoxSplits
from resnet_jax.data.detection.batches import Batch, BoxLoader
from resnet_jax.data.detection.coco import open_coco
from resnet_jax.data.detection.voc import open_voc
from resnet_jax.data.folders import alike, root_of
from resnet_jax.data.imagenet.loaders import AHEAD, PendingBatch, Unreadable, one_ahead
from resnet_jax.data.placement import place, rows_here
from resnet_jax.data.sampling import batch_numbers, padded_batches
from resnet_jax.data.segmentation.pipeline import colours_alone
from resnet_jax.data.streaming import Normalizer, Streamed, normalization_of
from resnet_jax.errors import UserError, some, with_notes
from resnet_jax.models.detection import LONGEST
from resnet_jax.models.detection.regions import Objects


@dataclasses.dataclass(frozen=True)
class BoxBatches:
    """Makes batches inside the jitted step; it holds no data.

    Attributes:
      augmentation: changes of colour of training images; what moves pixels is done with the boxes, on the host.
      crowds: whether `ignored` boxes are crowds, around which nothing is background (COCO); in PASCAL VOC they are
        single objects that are difficult, and are not trained on.
      most: boxes of a training image.
      proposer: a detector that proposes the regions, instead of the one that is trained; its variables are "proposer"
        among what is on the devices. None: there is none.
    """

    augmentation: Augmentation
    crowds: bool
    most: int
    proposer: Any = dataclasses.field(default=None, kw_only=True)

    #: Batches of several steps may differ in size.
    steps_per_dispatch: ClassVar[int] = 1

    def train_batch(self, resident: Any, inputs: Batch, key: Array) -> tuple[dict[str, Any], Any]:
        """Returns what a detector is trained on, and no targets: it gives what the losses need itself."""
        objects = (inputs.labels >= 0) & ~inputs.ignored
        crowd = (inputs.labels >= 0) & inputs.ignored if self.crowds else None
        found = Objects(inputs.boxes, jnp.maximum(inputs.labels, 0), objects, crowd)
        images = augmented(self.augmentation, resident, inputs.images, key, inputs.sizes)
        images = without_padding(images, inputs.sizes)
        return self._with_proposals(resident, {"images": images, "sizes": inputs.sizes, "objects": found}), ()

    def eval_batch(self, resident: Any, inputs: Batch) -> tuple[dict[str, Any], Batch]:
        """Returns normalised images with their sizes, and the batch."""
        images = without_padding(normalize(inputs.images, resident["mean"], resident["std"]), inputs.sizes)
        return self._with_proposals(resident, {"images": images, "sizes": inputs.sizes}), inputs

    def _with_proposals(self, resident: Any, batch: dict[str, Any]) -> dict[str, Any]:
        if self.proposer is None:
            return batch
        counts = self.proposer.train_proposals if "objects" in batch else self.proposer.test_proposals
        arguments = (batch["images"], batch["sizes"], counts)
        return batch | {"proposals": self.proposer.apply(resident["proposer"], arguments, part="propose_regions")[1]}

    def input_shapes(self, shape: tuple[int, ...], side: int) -> Batch:
        """Returns the shapes of what is sent for examples of `shape`, (batch,) or (steps, batch): the widest images."""
        one = Batch.empty(1, (side, round(LONGEST * side)), self.most)
        return Batch(*(jax.ShapeDtypeStruct((*shape, *array.shape[1:]), array.dtype) for array in one))


@dataclasses.dataclass(frozen=True)
class BoxPipeline(BoxBatches, Streamed):
    """Feeds steps with images that are decoded meanwhile; the methods are those of `ResidentPipeline`.

    Attributes:
      train, test: what images are normalised by, on the devices, and the variables of the proposer.
      train_loader, test_loader: decode the images.
      mesh: devices that share a batch.
      image_shape: (height, width, channels) of the widest images.
      batch_size: examples in a batch, over all devices.
      seed: of the order of examples and of mirror images.
      flip: whether half the training images are mirrored.
      classes: names of the classes, by label.
      evaluated_on: what the test images are: "test", "validation" or "held_out".
      remarks: sentences on what was left out of the set.
      source: what the images are read from.
    """

    train: Any
    test: Any
    train_loader: BoxLoader
    test_loader: BoxLoader
    mesh: Mesh
    image_shape: tuple[int, int, int]
    batch_size: int
    seed: int
    flip: bool
    classes: tuple[str, ...]
    evaluated_on: str
    remarks: tuple[str, ...]
    source: str
    _pending: dict[int, PendingBatch[Batch]] = dataclasses.field(default_factory=dict)

    #: Images are evaluated whole.
    shorter_side: ClassVar[int | None] = None

    #: Steps at which the size of images changes by schedule.
    size_changes: ClassVar[tuple[int, ...]] = ()

    @functools.cached_property
    def fingerprint(self) -> str:
        """Of the training and of the test images; see `batches.BoxLoader`."""
        return self.train_loader.fingerprint() + self.test_loader.fingerprint()

    @property
    def num_classes(self) -> int:
        """Number of classes."""
        return len(self.classes)

    def train_inputs(self, step: int, count: int, skipped: Sequence[int] = ()) -> Batch:
        """Returns what this process sends for the one step after `step`, (1, rows, ...), and begins the next."""
        assert count == 1, "batches of several steps may differ in size"
        numbers = batch_numbers(range(step, step + 1 + AHEAD), skipped)
        for number in self._pending.keys() - set(numbers):  # after a step back, or the end
            self._pending.pop(number).cancel()
        for number in numbers:
            if number not in self._pending:
                self._pending[number] = self.train_loader.begin_training(
                    self.seed, number, self.batch_size, rows_here(self.mesh, self.batch_size), self.flip
                )
        return Batch(*(array[None] for array in self._pending.pop(numbers[0]).result()))

    def test_inputs(self) -> Iterator[tuple[Batch, np.ndarray]]:
        """Yields (inputs, mask) of every batch of the test set; each example has mask 1 once."""
        return ((batch, mask) for (batch,), mask in self.test_pyramids([self.test_loader.shorter_side]))

    def test_pyramids(self, sides: Sequence[int]) -> Iterator[tuple[tuple[Batch, ...], np.ndarray]]:
        """Yields every batch of the test set at several sizes, and its mask; each example has mask 1 once.

        Args:
          sides: the shorter side of the images at each size, in pixels.
        """
        size = -(-self.batch_size // self.mesh.size) * self.mesh.size
        here = slice(*rows_here(self.mesh, size))
        begun = (
            ([self.test_loader.begin(which, bucket.indices[places[here]], np.zeros(size, bool), side)
              for side in sides], mask[here])
            for which, bucket in enumerate(self.test_loader.groups)
            for places, mask in padded_batches(len(bucket.indices), size)
        )  # fmt: skip
        for pending, present in one_ahead(begun):
            yield tuple(one.result() for one in pending), present


def open_boxes(data: ConfigDict) -> BoxSplits:
    """Opens the set that `config.data` names.

    Raises:
      UserError: for a folder that is not there, of another layout, or without an image that can be used.
    """
    root = root_of(data, "folder")
    if len(set(data.classes)) < len(data.classes):
        raise UserError(f"config.data.classes={tuple(data.classes)} must be different names")
    opened = {"voc": open_voc, "coco": open_coco}[data.name]
    splits = opened(root, data.eval_split, data.held_out_share, tuple(data.classes))
    shown = [{label for image in part for label in image.labels[~image.ignored].tolist()}
             for part in (splits.train, splits.test)]  # fmt: skip
    for labels, what in zip(shown, ("training", splits.evaluated_on.replace("_", " ")), strict=True):
        if not labels:
            said = f"the {what} images of {root} show no object of the classes {some(splits.classes, 5)}"
            raise with_notes(f"{said} that is not difficult or a crowd", splits.remarks)
    trained = shown[0]
    remarks = [*splits.remarks, *alike(splits.classes, "names")]
    if absent := [name for label, name in enumerate(splits.classes) if label not in trained]:
        remarks.append(f"{len(absent)} of {len(splits.classes)} classes have no object to train on: {some(absent, 4)}")
    return dataclasses.replace(splits, remarks=tuple(remarks))


def make_boxes(config: ConfigDict, mesh: Mesh) -> BoxPipeline:
    """Opens a set of images with boxes and starts the threads that decode it.

    Raises:
      UserError: for a set that cannot be read, and for fields that it cannot have.
    """
    data = config.data
    if config.steps_per_dispatch > 1:
        raise UserError(f"config.steps_per_dispatch={config.steps_per_dispatch} must be 0 or 1: batches of images with "
                        "boxes may differ in size")  # fmt: skip
    splits, side = open_boxes(data), data.image_size
    mean, std = normalization_of(data)
    normalizer: Normalizer = place({"mean": mean, "std": std}, NamedSharding(mesh, P()))
    crowded = [image for image in splits.train if len(image.labels) > data.most_objects]
    remarks = list(splits.remarks)
    if crowded:
        remarks.append(f"{len(crowded)} training images show more than config.data.most_objects={data.most_objects} "
                       f"objects, of which the first ones count, as {crowded[0].path.name}")  # fmt: skip
    unreadable = Unreadable()
    loader = BoxLoader("training", splits.train, side, data.most_objects, unreadable, data.workers)
    most = max(1, *(len(image.labels) for image in splits.test))
    test_loader = BoxLoader("test", splits.test, side, most, unreadable, data.workers)
    return BoxPipeline(
        colours_alone(data), data.name == "coco", data.most_objects, normalizer, normalizer, loader, test_loader, mesh,
        (side, round(LONGEST * side), 3), config.batch_size, config.seed, data.flip, splits.classes,
        splits.evaluated_on, tuple(remarks), str(data.data_dir or data.folder),
    )  # fmt: skip
