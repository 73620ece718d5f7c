"""Opens classification sets of tensorflow-datasets by name: in memory, or streamed if their images differ in size."""

import dataclasses
import functools
import math
import os
from pathlib import Path
from typing import Any

import numpy as np

from resnet_jax.data.dataset import Dataset, Split
from resnet_jax.data.held_out_split import choose_split, stratified_split
from resnet_jax.data.imagenet import TFDS
from resnet_jax.data.imagenet.source import TFDS_ERRORS, RecordError, Splits, TfdsSource
from resnet_jax.errors import UserError, one_line

#: TFDS's variable for its own directory, and where that is otherwise.
OWN_DIRECTORY, DEFAULT_DIRECTORY = "TFDS_DATA_DIR", "~/tensorflow_datasets"

#: What TFDS stores and reads at random without TensorFlow.
FORMAT = "array_record"

#: Describes a prepared set, in its folder.
INFO = "dataset_info.json"

#: Sets of more bytes of pixels than this are streamed, whatever their images' size.
RESIDENT_BYTES = 4 * 2**30


@dataclasses.dataclass(frozen=True)
class TfdsSet:
    """Holds a prepared set: its name, as in `config.data.name`, and TFDS's builder."""

    name: str
    builder: Any

    @property
    def classes(self) -> tuple[str, ...]:
        """Names by label."""
        return tuple(self.builder.info.features["label"].names)

    @property
    def source(self) -> str:
        """What it was read from."""
        return f"TFDS {self.builder.version} in {self.builder.data_dir}"

    @property
    def others(self) -> set[str]:
        """Which of "test" and "validation" it has, with labels."""
        return {part for part in ("test", "validation") if part in self.builder.info.splits and self._has_labels(part)}

    @property
    def is_streamed(self) -> bool:
        """Whether its images differ in size, or are too many for the devices."""
        shape = self.builder.info.features["image"].shape
        if None in shape:
            return True
        examples = sum(split.num_examples for split in self.builder.info.splits.values())
        return math.prod(shape) * examples > RESIDENT_BYTES

    def load(self, evaluated_on: str) -> Dataset:
        """Reads the training images and those of another part into memory; held_out: the training images twice.

        Raises:
          UserError: if it cannot be read.
        """
        train = self._read("train")
        test = train if evaluated_on == "held_out" else self._read(evaluated_on)
        return Dataset(self.name, train, test, len(self.classes), self.classes, evaluated_on, self.source)

    def sources(self, share: float, eval_split: str) -> Splits:
        """Opens the encoded images; raises UserError if they cannot be read, or for a part that it has not."""
        evaluated_on = choose_split(self.name, self.others, eval_split, share > 0)
        train = self._source("train")
        if evaluated_on != "held_out":
            return Splits(train, self._source(evaluated_on), evaluated_on)
        labels = [int(record["label"]) for record in train.records]
        names = [train.name(index) for index in range(len(train))]
        kept, held = stratified_split(names, labels, share, self.classes)
        return Splits(dataclasses.replace(train, places=kept), dataclasses.replace(train, places=held), evaluated_on)

    def _has_labels(self, split: str) -> bool:
        """Returns whether its first image has a label; TFDS gives -1 to all test images of ImageNet, for one."""
        try:
            return self._source(split).load(0).label >= 0
        except (RecordError, UserError):  # said when it is to be used
            return True

    def _read(self, split: str) -> Split:
        source = self._open(split)
        try:
            records = source.__getitems__(range(len(source)))
        except TFDS_ERRORS as error:
            raise self._unreadable(error) from error
        return Split(np.stack([r["image"] for r in records]), np.array([r["label"] for r in records], np.int32))

    def _source(self, split: str) -> TfdsSource:
        import tensorflow_datasets as tfds

        return TfdsSource(self._open(split, decoders={"image": tfds.decode.SkipDecoding()}), split, self.classes)

    def _open(self, split: str, **options: Any) -> Any:
        try:
            return self.builder.as_data_source(split, **options)
        except TFDS_ERRORS as error:
            raise self._unreadable(error) from error

    def _unreadable(self, error: Exception) -> UserError:
        return UserError(f"cannot read {self.name} in {self.builder.data_dir}, prepare it anew: {one_line(error)}")


def find_prepared(name: str, data_dir: Path | None) -> TfdsSet | None:
    """Opens a set that TFDS has prepared, of whatever version.

    Args:
      name: TFDS's name of the set.
      data_dir: a TFDS data directory, or a folder in it: the set's own, or that of a version. None for TFDS's own.

    Returns:
      The set, of the newest version that is there; None if there is none.

    Raises:
      UserError: if it cannot be read, or was not prepared as array_record.
    """
    root = data_dir or Path(os.environ.get(OWN_DIRECTORY) or DEFAULT_DIRECTORY).expanduser()
    described = (*root.glob(f"{name}/*/{INFO}"), *root.glob(f"*/{INFO}"), *root.glob(INFO))
    folders = [path.parent for path in described if "incomplete" not in path.parent.name]
    if not folders:
        return None
    import tensorflow_datasets as tfds

    try:
        builders = [tfds.builder_from_directory(folder) for folder in folders]
    except Exception as error:  # of many types
        raise UserError(f"cannot read {name} in {folders[0]}, prepare it anew: {one_line(error)}") from error
    named = [builder for builder in builders if builder.name == name]
    readable = [builder for builder in named if builder.info.file_format.value == FORMAT]
    if named and not readable and data_dir is not None:
        raise UserError(
            f"{name} in {data_dir} was not prepared as {FORMAT} but as {named[0].info.file_format.value}, which only "
            "TensorFlow reads"
        )
    return TfdsSet(name, max(readable, key=lambda builder: builder.version)) if readable else None


@functools.lru_cache(maxsize=2)
def open_tfds(name: str, data_dir: str | None = None) -> TfdsSet:
    """Opens a prepared set.

    Args:
      name: "tfds:NAME", or "tfds:NAME/CONFIG".
      data_dir: a TFDS data directory; None for TFDS's own.

    Raises:
      UserError: if it is not there, not prepared as array_record, or no set of images with one label each.
    """
    import tensorflow_datasets as tfds

    builder = _open_builder(name.removeprefix(TFDS), data_dir)
    features = dict(builder.info.features.items()) if hasattr(builder.info.features, "items") else {}
    if not (
        isinstance(features.get("image"), tfds.features.Image)
        and isinstance(features.get("label"), tfds.features.ClassLabel)
        and "train" in builder.info.splits
    ):
        raise UserError(
            f"{name} is no classification set: it needs a split train, and an image and a label for each example; it "
            f"has the splits {', '.join(builder.info.splits)} and {', '.join(sorted(features))}"
        )
    return TfdsSet(name, builder)


def _open_builder(name: str, data_dir: str | None) -> Any:
    """Returns the builder of a set that is prepared as array_record; prepares it in TFDS's own directory.

    Raises:
      UserError: if it is not there.
    """
    directory = None if data_dir is None else Path(data_dir).expanduser()
    if directory is not None and not directory.is_dir():
        raise UserError(f"config.data.data_dir={data_dir} is not a folder; give a TFDS data directory that has {name}")
    import tensorflow_datasets as tfds

    try:
        builder = tfds.builder(name, data_dir=directory, file_format=FORMAT)
    except tfds.core.DatasetNotFoundError as error:
        where = f"config.data.data_dir={data_dir}" if data_dir is not None else "TFDS's own directory"
        raise UserError(f"{where} holds no {name!r}, nor does tensorflow-datasets know it") from error
    except ValueError as error:
        raise UserError(
            f"{name} in {data_dir or OWN_DIRECTORY} was not prepared as {FORMAT}: {one_line(error)}"
        ) from error
    if not builder.is_prepared():
        if data_dir is not None:
            raise UserError(
                f"config.data.data_dir={data_dir} holds no prepared {name} (looked for {name}/{builder.version}); "
                "give a TFDS data directory that has it, or leave the field out to download it"
            )
        _prepare(name, builder)
    return builder


def _prepare(name: str, builder: Any) -> None:
    """Downloads and prepares a set; most need TensorFlow for it."""
    try:
        builder.download_and_prepare()
    except Exception as error:  # of many types
        raise UserError(
            f"cannot prepare {name} ({type(error).__name__}: {one_line(error)}); where TensorFlow and a network are, "
            f"`tfds build {name} --file_format={FORMAT} --data_dir=DIR` does; --config.data.data_dir=DIR reads it"
        ) from error
