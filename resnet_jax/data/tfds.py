"""Opens classification sets of tensorflow-datasets by name: in memory, or streamed if their images differ in size.

CIFAR is downloaded and prepared without TensorFlow; most other sets need it for that.
"""

import dataclasses
import functools
import math
import os
import socket
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest import mock

import numpy as np
from PIL import Image

from resnet_jax.data.dataset import Dataset, Split
from resnet_jax.data.held_out_split import choose_split, stratified_split
from resnet_jax.data.imagenet import TFDS
from resnet_jax.data.imagenet.source import TFDS_ERRORS, Splits, TfdsSource
from resnet_jax.errors import UserError, one_line

#: Where TFDS downloads CIFAR from.
CIFAR_HOST = "www.cs.toronto.edu"

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
    def others(self) -> set[str]:
        """Which of "test" and "validation" it has."""
        return {"test", "validation"} & set(self.builder.info.splits)

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
        return Dataset(self.name, train, test, len(self.classes), self.classes, evaluated_on)

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


def open_builder(name: str, data_dir: str | None, download: Callable[[Any], None]) -> Any:
    """Returns the builder of a set that is prepared as array_record.

    Args:
      name: TFDS's name of the set.
      data_dir: a TFDS data directory; None for TFDS's own.
      download: prepares the set in TFDS's own directory.

    Raises:
      UserError: if it is not there.
      DatasetNotFoundError: if TFDS knows no such set, and none lies in the directory.
    """
    if data_dir is not None and not Path(data_dir).expanduser().is_dir():
        raise UserError(f"config.data.data_dir={data_dir} is not a folder; give a TFDS data directory that has {name}")
    import tensorflow_datasets as tfds

    directory = None if data_dir is None else Path(data_dir).expanduser()
    # TFDS prepares and reads at random no other format without TensorFlow.
    try:
        builder = tfds.builder(name, data_dir=directory, file_format="array_record")
    except tfds.core.registered.DatasetNotFoundError:
        raise
    except ValueError as error:
        raise UserError(
            f"{name} in {data_dir or 'TFDS_DATA_DIR'} was not prepared as array_record: {one_line(error)}"
        ) from error
    if not builder.is_prepared():
        if data_dir is not None:
            raise UserError(
                f"config.data.data_dir={data_dir} holds no prepared {name} (looked for {name}/{builder.version}); "
                "give a TFDS data directory that has it, or leave the field out to download it"
            )
        download(builder)
    return builder


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

    short = name.removeprefix(TFDS)
    try:
        builder = open_builder(short, data_dir, functools.partial(_prepare, short))
    except tfds.core.registered.DatasetNotFoundError as error:
        where = f"config.data.data_dir={data_dir}" if data_dir is not None else "TFDS's own directory"
        raise UserError(f"{where} holds no {short!r}, nor does tensorflow-datasets know it") from error
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


def _prepare(name: str, builder: Any) -> None:
    """Downloads and prepares a set; most need TensorFlow for it."""
    try:
        builder.download_and_prepare()
    except Exception as error:  # of many types
        raise UserError(
            f"cannot prepare {name} ({type(error).__name__}: {one_line(error)}); where TensorFlow and a network are, "
            f"`tfds build {name} --file_format=array_record --data_dir=DIR` does; --config.data.data_dir=DIR reads it"
        ) from error


def load_cifar(name: str, data_dir: str | None = None) -> Dataset:
    """Loads CIFAR-10 or CIFAR-100 through tensorflow-datasets, without TensorFlow.

    Args:
      name: "cifar10" or "cifar100".
      data_dir: a TFDS data directory that holds the prepared set. If None, TFDS's own directory
        (`~/tensorflow_datasets`, or `TFDS_DATA_DIR`), where the set is downloaded and prepared on first use.

    Raises:
      UserError: if `data_dir` does not hold the set, or the download fails.
    """
    return TfdsSet(name, open_builder(name, data_dir, _download_cifar)).load("test")


def _download_cifar(builder: Any) -> None:
    """Downloads and prepares CIFAR into TFDS's own directory, with TFDS's progress bars."""
    from tensorflow_datasets.core.download import extractor
    from tensorflow_datasets.image_classification import cifar

    # Replaces what TFDS 4.9.10 uses TensorFlow for here: opening local files and reading their names while it unpacks
    # the archive, and reading its binary files as arrays. It encodes Pillow's images as PNG without TensorFlow.
    files = SimpleNamespace(
        io=SimpleNamespace(gfile=SimpleNamespace(GFile=open)), compat=SimpleNamespace(as_text=os.fspath)
    )
    with mock.patch.object(extractor, "tf", files), mock.patch.object(cifar, "_load_data", _cifar_records):
        try:
            if not urllib.request.getproxies():
                # Without a network, TFDS would retry ten times over three minutes.
                socket.getaddrinfo(CIFAR_HOST, 443)
            builder.download_and_prepare()
        except Exception as error:  # of many types
            raise UserError(
                f"cannot download {builder.name} ({type(error).__name__}: {one_line(error)}); prepare it where there "
                "is a network with tensorflow-datasets (file_format='array_record') and pass --config.data.data_dir=DIR"
            ) from error


def _cifar_records(path: str, label_bytes: int = 1) -> Iterator[tuple[np.ndarray, Image.Image]]:
    """Yields (labels, image) of each record in CIFAR's binary format: labels, then red, green and blue planes."""
    for record in np.fromfile(path, np.uint8).reshape(-1, label_bytes + 3 * 32 * 32):
        planes = record[label_bytes:].reshape(3, 32, 32)
        yield record[:label_bytes], Image.fromarray(planes.transpose(1, 2, 0).copy())
