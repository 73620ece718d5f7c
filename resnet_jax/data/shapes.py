"""The shapes of what a config's steps take, without its data set: a step can be compiled from them."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Mesh
from ml_collections import ConfigDict

from resnet_jax.data.augment import Augmentation
from resnet_jax.data.buckets import PIXELS
from resnet_jax.data.detection.pipeline import BoxBatches
from resnet_jax.data.imagenet import STREAMED, TFDS
from resnet_jax.data.placement import eval_batch_size
from resnet_jax.data.resident import ResidentBatches
from resnet_jax.data.segmentation.pipeline import SegmentationBatches, colours_alone
from resnet_jax.data.streaming import StreamingBatches, training_sizes
from resnet_jax.errors import UserError
from resnet_jax.models.detection import LONGEST


@dataclasses.dataclass(frozen=True)
class DatasetShape:
    """Holds what a step's shapes need of a data set.

    Attributes:
      num_classes: number of classes.
      train_size, test_size: numbers of examples.
      image_shape: (height, width, channels) of images in memory; None for those that are streamed.
    """

    num_classes: int
    train_size: int
    test_size: int
    image_shape: tuple[int, int, int] | None = None


#: As their authors count them.
KNOWN = {
    "cifar10": DatasetShape(10, 50_000, 10_000, (32, 32, 3)),
    "cifar100": DatasetShape(100, 50_000, 10_000, (32, 32, 3)),
    "digits": DatasetShape(10, 1437, 360, (8, 8, 1)),
    "synthetic": DatasetShape(10, 1024, 256, (32, 32, 3)),
    "imagenet": DatasetShape(1000, 1_281_167, 50_000),
    "voc2012": DatasetShape(21, 1464, 1449),
    "cityscapes": DatasetShape(19, 2975, 500),
    "voc": DatasetShape(20, 16_551, 4952),  # 07+12
    "coco": DatasetShape(80, 118_287, 5000),
}


@dataclasses.dataclass(frozen=True)
class StepShapes:
    """Stands for a pipeline where a step is compiled and never run.

    Attributes:
      batches: makes the batches inside the step.
      num_classes: number of classes.
      image_shape: (height, width, channels) that the net is made for.
      train, test: shapes of what lies on the devices.
      train_size, test_size: numbers of examples.
      size_changes: steps at which the size of images changes.
      batch_size, eval_batch_size: examples in a batch, over all devices.
      largest: side of the largest images that are trained on, in pixels; 0 for sets in memory.
    """

    batches: ResidentBatches | StreamingBatches | SegmentationBatches | BoxBatches
    num_classes: int
    image_shape: tuple[int, int, int]
    train: Any
    test: Any
    train_size: int
    test_size: int
    size_changes: tuple[int, ...]
    batch_size: int
    eval_batch_size: int
    largest: int

    @property
    def steps_per_dispatch(self) -> int:
        """Returns the most steps of one dispatch."""
        return self.batches.steps_per_dispatch

    def train_inputs(self, count: int) -> Any:
        """Returns the shapes of what is sent for `count` steps."""
        return self.batches.input_shapes((count, self.batch_size), self.largest)

    def eval_inputs(self) -> tuple[Any, jax.ShapeDtypeStruct]:
        """Returns the shapes of what is sent for a batch of the evaluation: inputs, and their mask."""
        shape = (self.eval_batch_size,)
        return self.batches.input_shapes(shape, self.image_shape[0]), jax.ShapeDtypeStruct(shape, jnp.float32)


def step_shapes(config: ConfigDict, mesh: Mesh, num_classes: int | None = None) -> StepShapes:
    """Returns the shapes of a config's steps on a mesh; nothing is read, no array is made.

    Args:
      config: the fields of `config.base_config`.
      mesh: devices that share a batch.
      num_classes: of a set whose shape is not known by its name, which is then taken to be read from files.

    Raises:
      UserError: for such a set without `num_classes`.
    """
    data = config.data
    known = KNOWN.get(data.name)
    if config.task == "segmentation":
        named = known.num_classes if known else len(data.classes) or (2 if data.instances else None)
        if num_classes is None and named is None:
            raise _unknown_classes(data.name)
        return _segmentation_shapes(config, mesh, num_classes or named or 0)
    if config.task == "detection":
        return _detection_shapes(config, mesh, num_classes or len(data.classes))
    if known is None and num_classes is None:
        raise _unknown_classes(data.name)
    if known is None and data.name not in STREAMED and not data.name.startswith(TFDS):
        raise UserError(f"unknown dataset {data.name!r}; known: {', '.join(sorted({*KNOWN, *STREAMED}))}, tfds:NAME")
    shape = known or DatasetShape(num_classes or 0, 10**6, 10**5)
    held = data.held_out or round(data.held_out_share * shape.train_size)
    train_size, test_size = (shape.train_size - held, held) if held else (shape.train_size, shape.test_size)
    eval_batch = eval_batch_size(mesh, test_size)
    augmentation = Augmentation.of_config(data)

    def arrays(images: int, mean: tuple[int, ...]) -> dict[str, jax.ShapeDtypeStruct]:
        found = {"mean": jax.ShapeDtypeStruct(mean, jnp.float32), "std": jax.ShapeDtypeStruct(mean[-1:], jnp.float32)}
        if shape.image_shape is None:
            return found
        pixels = (images, image[0] * image[1] * image[2])
        return found | {
            "images": jax.ShapeDtypeStruct(pixels, jnp.uint8), "labels": jax.ShapeDtypeStruct((images,), jnp.int32)
        }  # fmt: skip

    if shape.image_shape is None:
        image = (data.image_size, data.image_size, 3)
        normalizer = arrays(0, (3,))
        sizes, changes = training_sizes(config)
        return StepShapes(
            StreamingBatches(augmentation), shape.num_classes, image, normalizer, normalizer, train_size, test_size,
            changes, config.batch_size, eval_batch, max(sizes),
        )  # fmt: skip
    side = data.resize
    height, width, channels = shape.image_shape
    image = (side or height, side or width, 3 if data.rgb else channels)
    mean = image if data.normalization == "per_pixel_mean" else image[-1:]
    return StepShapes(
        ResidentBatches(augmentation, image), shape.num_classes, image, arrays(train_size, mean),
        arrays(test_size, mean), train_size, test_size, (), config.batch_size, eval_batch, 0,
    )  # fmt: skip


def _unknown_classes(name: str) -> UserError:
    return UserError(f"the classes of {name} are not known without reading it: say how many, --num_classes=N")


def _segmentation_shapes(config: ConfigDict, mesh: Mesh, num_classes: int) -> StepShapes:
    """Returns those of crops. Whole images of the evaluation have other sizes; its step is shown at the crops'."""
    size, known = config.data.image_size, KNOWN.get(config.data.name)
    train_size, test_size = (known.train_size, known.test_size) if known else (1000, 100)
    normalizer = dict.fromkeys(("mean", "std"), jax.ShapeDtypeStruct((3,), jnp.float32))
    most = max(1, PIXELS // size**2) * mesh.size
    return StepShapes(
        SegmentationBatches(colours_alone(config.data)), num_classes, (size, size, 3), normalizer, normalizer,
        train_size, test_size, (), config.batch_size, min(most, -(-test_size // mesh.size) * mesh.size), size,
    )  # fmt: skip


def _detection_shapes(config: ConfigDict, mesh: Mesh, num_classes: int) -> StepShapes:
    """Returns those of the widest images; batches of other sizes are smaller or taller."""
    side, known = config.data.image_size, KNOWN[config.data.name]
    normalizer = dict.fromkeys(("mean", "std"), jax.ShapeDtypeStruct((3,), jnp.float32))
    return StepShapes(
        BoxBatches(colours_alone(config.data), config.data.name == "coco", config.data.most_objects),
        num_classes or known.num_classes, (side, round(LONGEST * side), 3), normalizer, normalizer, known.train_size,
        known.test_size, (), config.batch_size, -(-config.batch_size // mesh.size) * mesh.size, side,
    )  # fmt: skip
