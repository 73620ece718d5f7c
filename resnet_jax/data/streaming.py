"""Sets that do not fit the devices: images are decoded on the host and sent as uint8, with the face of
`pipeline.ResidentPipeline`."""

import bisect
import dataclasses
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, ClassVar, NamedTuple, TypedDict

import numpy as np
from jax import Array
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P
from ml_collections import ConfigDict

from resnet_jax.data.augment import IMAGENET_MEAN, IMAGENET_STD, normalize
from resnet_jax.data.augmentation import Augmentation, augmented
from resnet_jax.data.colour import colour_basis
from resnet_jax.data.folders import open_folder
from resnet_jax.data.imagenet import TFDS
from resnet_jax.data.imagenet.originals import open_originals
from resnet_jax.data.imagenet.shards import ShardSource, manifest_path
from resnet_jax.data.imagenet.source import Source
from resnet_jax.data.imagenet.test_crops import Crops
from resnet_jax.data.imagenet.test_loader import Pending, TestLoader
from resnet_jax.data.imagenet.train_loader import AHEAD, TrainLoader
from resnet_jax.data.imagenet.wnids import COUNTS, official_wnids
from resnet_jax.data.pipeline import EVAL_BATCH
from resnet_jax.data.placement import place, place_rows, rows_here
from resnet_jax.data.rand_augment import RandAugment
from resnet_jax.data.sampling import batch_numbers, padded_batches
from resnet_jax.data.tfds_sets import open_tfds
from resnet_jax.errors import UserError


class Normalizer(TypedDict):
    """What images are normalised by, on the devices, (3,)."""

    mean: Array
    std: Array


class Images(TypedDict):
    """What the host sends: uint8 images (..., height, width, 3) and int32 labels (...)."""

    images: Any
    labels: Any


@dataclasses.dataclass(frozen=True)
class StreamingPipeline:
    """A data set on its way to the devices; methods as those of `ResidentPipeline`.

    Attributes:
      train, test: what images are normalised by.
      train_loader, test_loader: what decodes.
      image_shape: (height, width, channels) that is tested on, and that the net is made for.
      batch_size, eval_batch_size: examples in a batch, over all devices.
      eval_rows: first, and one behind the last, row of an evaluation batch that this process feeds.
      augmentation: what is done to training images.
      sizes: pixels of a side that is trained on, one after another.
      size_changes: steps at which each of them but the first begins.
      classes: names of the classes, by label: ImageNet's wnids, or the names of folders.
      evaluated_on: what the test images are: "test", "validation" or "held_out".
      remarks: sentences on what of the set was passed over.
    """

    train: Normalizer
    test: Normalizer
    train_loader: TrainLoader
    test_loader: TestLoader
    image_shape: tuple[int, int, int]
    batch_size: int
    eval_batch_size: int
    eval_rows: tuple[int, int]
    augmentation: Augmentation
    sizes: tuple[int, ...] = ()
    size_changes: tuple[int, ...] = ()
    classes: tuple[str, ...] = ()
    evaluated_on: str = "test"
    remarks: tuple[str, ...] = ()

    #: Images of more than a step at once would fill the host and the devices.
    steps_per_dispatch: ClassVar[int] = 1

    @property
    def train_size(self) -> int:
        """Training examples."""
        return len(self.train_loader.source)

    @property
    def test_size(self) -> int:
        """Test examples."""
        return len(self.test_loader.source)

    @property
    def seed(self) -> int:
        """Of the order of examples and of crops."""
        return self.train_loader.seed

    @property
    def num_classes(self) -> int:
        """Of the set."""
        return self.train_loader.source.num_classes

    def train_inputs(self, step: int, count: int, skipped: Sequence[int] = ()) -> Images:
        """What this process sends for `count` steps from `step` on, (count, rows, ...); the next are begun.

        The steps must be of one size.
        """
        steps = range(step, step + count + AHEAD)
        numbers = batch_numbers(steps, skipped)
        # By the step: it stays where it is when batches are left out.
        sizes = [self.sizes[bisect.bisect_right(self.size_changes, s)] for s in steps]
        images, labels = self.train_loader.batches(numbers[:count], numbers[count:], sizes)
        return Images(images=images, labels=labels)

    def train_batch(self, resident: Normalizer, inputs: Images, key: Array) -> tuple[Array, Array]:
        """In the jitted step: augmented images (batch, height, width, 3), labels (batch,)."""
        return augmented(self.augmentation, resident, inputs["images"], key), inputs["labels"]

    def eval_batch(self, resident: Normalizer, inputs: Images) -> tuple[Array, Array]:
        """In the jitted step: normalised images (batch, height, width, 3), labels (batch,)."""
        return normalize(inputs["images"], resident["mean"], resident["std"]), inputs["labels"]

    def test_inputs(self) -> Iterator[tuple[Images, np.ndarray]]:
        """(images, mask) of every batch of the test set; each example has mask 1 once."""
        first, last = self.eval_rows
        batches = padded_batches(self.test_size, self.eval_batch_size)
        waiting = None
        for indices, mask in batches:  # one batch ahead
            begun = (self.test_loader.begin(indices[first:last]), mask[first:last])
            if waiting is not None:
                yield self._images(*waiting)
            waiting = begun
        if waiting is not None:
            yield self._images(*waiting)

    def _images(self, pending: Pending, mask: np.ndarray) -> tuple[Images, np.ndarray]:
        (images,), labels, _ = pending.result()
        return Images(images=images, labels=labels), mask

    def send(self, inputs: Any, sharding: NamedSharding) -> Any:
        """Puts this process's share on its devices."""
        return place_rows(inputs, sharding)

    def warnings(self) -> list[str]:
        """A sentence for each image that could not be read since the last call."""
        return self.train_loader.unreadable.news()

    def notes(self) -> Iterator[str]:
        """What one should know ahead of the first step."""
        yield from self.remarks
        if self.num_classes == 1000 and self.train_size < 0.99 * COUNTS["train"]:
            yield f"{self.train_size:,} training images are a part of ImageNet's {COUNTS['train']:,}"


class Splits(NamedTuple):
    """Images to train on, to evaluate on, what the latter are, and sentences on what was passed over."""

    train: Source
    test: Source
    evaluated_on: str = "test"
    remarks: tuple[str, ...] = ()


def open_splits(name: str, data_dir: str | None, share: float = 0.0, eval_split: str = "auto") -> Splits:
    """Training and test images of a set.

    Args:
      name: "imagenet", whose classes are the 1,000 of ILSVRC 2012; "image_folder", whose classes are folders, sorted;
        "tfds:NAME".
      data_dir: what `prepare` wrote; or see `folders.open_folder`; for imagenet anything else that `prepare` takes; a
        TFDS data directory.
      share, eval_split: what to evaluate on, see `held_out_split.choose_split`; not for imagenet.

    Raises:
      UserError: if it is none of these, cannot be read, or something is missing.
    """
    if name.startswith(TFDS):
        return Splits(*open_tfds(name, data_dir).sources(share, eval_split))
    if data_dir is None:
        field = "folder=PATH, with a folder of images for each class" if name == "image_folder" else (
            "data_dir=DIR: what `prepare imagenet` wrote, or train/ and val/")  # fmt: skip
        raise UserError(f"{name} needs --config.data.{field}")
    root = Path(data_dir).expanduser()
    if manifest_path(root, "train").exists() or list(root.glob("*.array_record"))[:1]:
        return Splits(ShardSource(root, "train"), ShardSource(root, "val"))
    if name == "imagenet":
        splits = open_originals(root, allow_partial=True, called="config.data.data_dir")
        return Splits(splits["train"], splits["val"])
    opened = open_folder(root, eval_split, share)
    return Splits(opened.train, opened.test, opened.evaluated_on, opened.notes)


def make_streaming(config: ConfigDict, mesh: Mesh) -> StreamingPipeline:
    """Opens a set and starts the threads that decode it.

    Raises:
      UserError: for a set that cannot be read, and for fields that it cannot have.
    """
    data = config.data
    if data.held_out:
        raise UserError(f"config.data.held_out={data.held_out} is for sets that live on the devices, not {data.name}; "
                        "there is config.data.held_out_share")  # fmt: skip
    # The folder names the set; data_dir, which may be given when evaluating, says where it lies now.
    splits = open_splits(data.name, data.data_dir or data.folder, data.held_out_share, data.eval_split)
    train, test = splits.train, splits.test
    size, everywhere = data.image_size, NamedSharding(mesh, P())
    eval_batch = -(-min(EVAL_BATCH, len(test)) // mesh.size) * mesh.size
    normalizer = place(_normalizer(data), everywhere)
    loader = TrainLoader(
        train, seed=config.seed, batch_size=config.batch_size, rows=rows_here(mesh, config.batch_size), size=size,
        crop=data.crop, sides=tuple(data.shorter_side), workers=data.workers, repeats=data.repeats,
    )  # fmt: skip
    cut = Crops(size, data.eval_shorter_side)
    tester = TestLoader(test, cut=cut, unreadable=loader.unreadable, workers=data.workers)
    return StreamingPipeline(
        normalizer, normalizer, loader, tester, (size, size, 3), config.batch_size, eval_batch,
        rows_here(mesh, eval_batch),
        Augmentation(data.padding, data.flip, data.colour_pca, colour_basis() if data.colour_pca else None,
                     data.random_erasing, RandAugment.of_config(data.rand_augment), data.colour_jitter),
        tuple(data.train_sizes) or (size,), tuple(round(f * config.steps) for f in data.size_boundaries),
        official_wnids() if data.name == "imagenet" else tuple(getattr(train, "classes", ())),
        splits.evaluated_on, splits.remarks,
    )  # fmt: skip


def _normalizer(data: ConfigDict) -> Normalizer:
    kind = data.normalization
    if kind == "weights":
        return Normalizer(mean=np.array(data.mean, np.float32), std=np.array(data.std, np.float32))  # type: ignore[typeddict-item]
    if kind == "per_channel":
        raise UserError("config.data.normalization=per_channel is for sets in memory; imagenet is that of ImageNet")
    mean = np.array(IMAGENET_MEAN, np.float32)
    # A mean image would be of whole images, and crops of all sizes are of all places: its mean is taken for it, and
    # as with small sets nothing is divided by.
    std = np.ones(3, np.float32) if kind == "per_pixel_mean" else np.array(IMAGENET_STD, np.float32)
    return Normalizer(mean=mean, std=std)  # type: ignore[typeddict-item]
