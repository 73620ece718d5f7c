"""Data sets that do not fit the devices: the host decodes their images and sends them as uint8."""

import bisect
import dataclasses
import functools
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, ClassVar, TypedDict

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P
from ml_collections import ConfigDict

from resnet_jax.config import base_config
from resnet_jax.data.augment import IMAGENET_MEAN, IMAGENET_STD, Augmentation, augmented, normalize
from resnet_jax.data.folders import open_folder
from resnet_jax.data.held_out_split import check_not_held_out
from resnet_jax.data.imagenet import TFDS
from resnet_jax.data.imagenet.fingerprint import fingerprint
from resnet_jax.data.imagenet.loaders import AHEAD, Loader, TestLoader, TrainLoader, one_ahead
from resnet_jax.data.imagenet.originals import open_originals
from resnet_jax.data.imagenet.shards import ShardSource, manifest_path
from resnet_jax.data.imagenet.source import Splits
from resnet_jax.data.imagenet.test_crops import Crops
from resnet_jax.data.imagenet.wnids import COUNTS, official_wnids
from resnet_jax.data.placement import eval_batch_size, place, place_rows, rows_here
from resnet_jax.data.sampling import batch_numbers, padded_batches
from resnet_jax.data.size_notes import size_notes
from resnet_jax.data.tfds import open_tfds
from resnet_jax.errors import UserError


class Normalizer(TypedDict):
    """What images are normalised by, (3,)."""

    mean: Array
    std: Array


class Images(TypedDict):
    """What the host sends: uint8 images (..., height, width, 3) and int32 labels (...)."""

    images: Any
    labels: Any


@dataclasses.dataclass(frozen=True)
class StreamingBatches:
    """Makes batches inside the jitted step; as `resident.ResidentBatches`, it holds no data.

    Attributes:
      augmentation: what is done to training images.
    """

    augmentation: Augmentation

    #: Images of several steps would fill the host and the devices.
    steps_per_dispatch: ClassVar[int] = 1

    def train_batch(self, resident: Normalizer, inputs: Images, key: Array) -> tuple[Array, Array]:
        """Returns augmented images (batch, height, width, 3) and labels (batch,)."""
        return augmented(self.augmentation, resident, inputs["images"], key), inputs["labels"]

    def eval_batch(self, resident: Normalizer, inputs: Images) -> tuple[Array, Array]:
        """Returns normalised images (batch, height, width, 3) and labels (batch,)."""
        return normalize(inputs["images"], resident["mean"], resident["std"]), inputs["labels"]

    def input_shapes(self, shape: tuple[int, ...], side: int) -> Any:
        """Returns the shapes of what is sent for examples of `shape`, (batch,) or (steps, batch), of `side` pixels."""
        images = jax.ShapeDtypeStruct((*shape, side, side, 3), jnp.uint8)
        return {"images": images, "labels": jax.ShapeDtypeStruct(shape, jnp.int32)}


class Streamed:
    """Holds what pipelines have in common whose images are decoded meanwhile.

    Attributes:
      train_loader, test_loader: decode the images; they share what they collect of images that cannot be read.
      remarks: sentences on files of the set that were left out.
    """

    train_loader: Loader
    test_loader: Loader
    remarks: tuple[str, ...]

    @property
    def train_size(self) -> int:
        """Number of training examples."""
        return len(self.train_loader.source)

    @property
    def test_size(self) -> int:
        """Number of test examples."""
        return len(self.test_loader.source)

    def send(self, inputs: Any, sharding: NamedSharding) -> Any:
        """Puts this process's share on its devices."""
        return place_rows(inputs, sharding)

    def unreadable(self) -> np.ndarray:
        """Returns which test images this process could not read when it last loaded them, bool (n,)."""
        found = np.zeros(self.test_size, bool)
        found[list(self.test_loader.grey)] = True
        return found

    def warnings(self) -> list[str]:
        """Returns sentences on the images that could not be read since the last call."""
        return self.train_loader.unreadable.new_warnings()

    def notes(self) -> Iterator[str]:
        """Yields what users should know before the first step."""
        yield from self.remarks


@dataclasses.dataclass(frozen=True)
class StreamingPipeline(StreamingBatches, Streamed):
    """Feeds steps with images that are decoded meanwhile; the methods are those of `ResidentPipeline`.

    Attributes:
      train, test: what images are normalised by, on the devices.
      train_loader, test_loader: decode the images.
      image_shape: (height, width, channels) of test images, for which the net is made.
      batch_size, eval_batch_size: examples in a batch, over all devices.
      eval_rows: (first, end) of the rows of an evaluation batch that this process feeds.
      sizes: sides of training images in pixels, one after another.
      size_changes: steps at which each of them but the first begins.
      classes: names of the classes, by label: ImageNet's WordNet ids, or the names of folders.
      evaluated_on: what the test images are: "test", "validation" or "held_out".
      remarks: sentences on files of the set that were left out.
      source: what the images are read from.
    """

    train: Normalizer
    test: Normalizer
    train_loader: TrainLoader
    test_loader: TestLoader
    image_shape: tuple[int, int, int]
    batch_size: int
    eval_batch_size: int
    eval_rows: tuple[int, int]
    sizes: tuple[int, ...] = ()
    size_changes: tuple[int, ...] = ()
    classes: tuple[str, ...] = ()
    evaluated_on: str = "test"
    remarks: tuple[str, ...] = ()
    source: str = ""

    @functools.cached_property
    def fingerprint(self) -> str:
        """Of the training and of the test images; see `imagenet.fingerprint`."""
        return fingerprint(self.train_loader.source) + fingerprint(self.test_loader.source)

    @property
    def seed(self) -> int:
        """Seed of the order of examples and of crops."""
        return self.train_loader.seed

    @property
    def num_classes(self) -> int:
        """Number of classes."""
        return self.train_loader.source.num_classes

    def train_inputs(self, step: int, count: int, skipped: Sequence[int] = ()) -> Images:
        """Returns what this process sends for `count` steps from `step` on, (count, rows, ...), and begins the next.

        The steps must be of one size.
        """
        steps = range(step, step + count + AHEAD)
        numbers = batch_numbers(steps, skipped)
        # By the step, which does not move when batches are left out.
        sizes = [self.sizes[bisect.bisect_right(self.size_changes, s)] for s in steps]
        images, labels = self.train_loader.batches(numbers[:count], numbers[count:], sizes)
        return Images(images=images, labels=labels)

    def test_inputs(self) -> Iterator[tuple[Images, np.ndarray]]:
        """Yields (images, mask) of every batch of the test set; each example has mask 1 once."""
        here = slice(*self.eval_rows)
        batches = padded_batches(self.test_size, self.eval_batch_size)
        begun = ((self.test_loader.begin(indices[here]), mask[here]) for indices, mask in batches)
        for pending, present in one_ahead(begun):
            (images,), labels, _ = pending.result()
            yield Images(images=images, labels=labels), present

    @property
    def shorter_side(self) -> int:
        """Shorter side in pixels that test images have ahead of the centre crop; 0: they are shown whole."""
        return self.test_loader.views.side

    def notes(self) -> Iterator[str]:
        """Yields what users should know before the first step."""
        yield from super().notes()
        if self.num_classes == 1000 and self.train_size < 0.99 * COUNTS["train"]:
            yield f"{self.train_size:,} training images are a part of ImageNet's {COUNTS['train']:,}"
        loader = self.train_loader
        sides = None if loader.crop == "aspect" else loader.sides
        yield from size_notes(loader.source, self.image_shape[0], sides, self.shorter_side)


def open_splits(name: str, data_dir: str | None, share: float = 0.0, eval_split: str = "auto") -> Splits:
    """Opens the training and test images of a set.

    Args:
      name: "imagenet", whose classes are the 1,000 of ILSVRC 2012; "image_folder", whose classes are folders, sorted;
        "tfds:NAME".
      data_dir: for "tfds:NAME", a TFDS data directory; otherwise what `prepare` wrote, or, for imagenet, anything else
        that `prepare` reads, or a folder as `folders.open_folder` takes it.
      share, eval_split: see `held_out_split.choose_split`; no images are held out of imagenet, nor of what `prepare`
        wrote.

    Raises:
      UserError: if it is none of these, cannot be read, or something is missing.
    """
    if name.startswith(TFDS):
        return open_tfds(name, data_dir).sources(share, eval_split)
    if data_dir is None:
        field = "folder=PATH, with a folder of images for each class" if name == "image_folder" else (
            "data_dir=DIR: what `prepare imagenet` wrote, or train/ and val/")  # fmt: skip
        raise UserError(f"{name} needs --config.data.{field}")
    root = Path(data_dir).expanduser()
    prepared = manifest_path(root, "train").exists() or list(root.glob("*.array_record"))[:1]
    if prepared or name == "imagenet":
        check_not_held_out(name, eval_split)
    # ILSVRC's validation images are what the papers test on: they are called so only where the config does.
    called = "validation" if eval_split == "validation" else "test"
    if prepared:
        return Splits(ShardSource(root, "train"), ShardSource(root, "val"), called)
    if name == "imagenet":
        splits = open_originals(root, allow_partial=True, called="config.data.data_dir")
        return Splits(splits["train"], splits["val"], called)
    return open_folder(root, eval_split, share)


def training_sizes(config: ConfigDict) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Returns the sides of training images in pixels, and the steps at which each of them but the first begins."""
    data = config.data
    changes = tuple(round(fraction * config.steps) for fraction in data.size_boundaries)
    return tuple(data.train_sizes) or (data.image_size,), changes


def training_sides(data: ConfigDict) -> tuple[int, int]:
    """Returns the least and the largest shorter side of training images in pixels, ahead of the crop.

    Where `shorter_side` is left at its default, which is for 224 pixels, "center" is the crop that is evaluated.
    """
    least, most = data.shorter_side
    if data.crop == "center" and (least, most) == tuple(base_config().data.shorter_side):
        return data.eval_shorter_side, data.eval_shorter_side
    return least, most


def make_streaming(config: ConfigDict, mesh: Mesh) -> StreamingPipeline:
    """Opens a set and starts the threads that decode it.

    Raises:
      UserError: for a set that cannot be read, and for fields that it cannot have.
    """
    data, size = config.data, config.data.image_size
    if data.held_out:
        raise UserError(f"config.data.held_out={data.held_out} is for sets that live on the devices, not {data.name}; "
                        "there is config.data.held_out_share")  # fmt: skip
    if data.resize:
        raise UserError(f"config.data.resize={data.resize} is for sets that live on the devices, not {data.name}; "
                        "config.data.image_size is the size of its crops")  # fmt: skip
    # The folder names the set; data_dir, which may be given when evaluating, says where it is now.
    train, test, evaluated_on, remarks = open_splits(
        data.name, data.data_dir or data.folder, data.held_out_share, data.eval_split
    )
    eval_batch = eval_batch_size(mesh, len(test))
    mean, std = normalization_of(data)
    normalizer: Normalizer = place({"mean": mean, "std": std}, NamedSharding(mesh, P()))
    loader = TrainLoader(
        train, seed=config.seed, batch_size=config.batch_size, rows=rows_here(mesh, config.batch_size), size=size,
        crop=data.crop, sides=training_sides(data), workers=data.workers, repeats=data.repeats,
    )  # fmt: skip
    crops = Crops(size, data.eval_shorter_side)
    test_loader = TestLoader(test, views=crops, unreadable=loader.unreadable, workers=data.workers)
    return StreamingPipeline(
        Augmentation.of_config(data), normalizer, normalizer, loader, test_loader, (size, size, 3), config.batch_size,
        eval_batch, rows_here(mesh, eval_batch), *training_sizes(config),
        official_wnids() if data.name == "imagenet" else tuple(getattr(train, "classes", ())), evaluated_on, remarks,
        str(data.data_dir or data.folder or ""),
    )  # fmt: skip


def normalization_of(data: ConfigDict) -> tuple[np.ndarray, np.ndarray]:
    """Returns the mean and deviation, (3,), by which images that are read from files are normalised.

    Raises:
      UserError: for a normalisation that only sets in memory can have.
    """
    if data.normalization == "weights":
        return np.array(data.mean, np.float32), np.array(data.std, np.float32)
    if data.normalization == "per_channel":
        raise UserError("config.data.normalization=per_channel is for sets in memory; imagenet is that of ImageNet")
    # Crops come from all places of an image, so that ImageNet's mean colour stands for the mean image.
    std = np.ones(3) if data.normalization == "per_pixel_mean" else np.array(IMAGENET_STD)
    return np.array(IMAGENET_MEAN, np.float32), std.astype(np.float32)
