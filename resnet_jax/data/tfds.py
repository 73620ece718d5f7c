"""CIFAR through tensorflow-datasets, downloaded, prepared and read without TensorFlow."""

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
from resnet_jax.errors import UserError

#: Where TFDS downloads CIFAR from.
CIFAR_HOST = "www.cs.toronto.edu"


def load_tfds(name: str, data_dir: str | None = None) -> Dataset:
    """CIFAR-10 or CIFAR-100 through tensorflow-datasets, without TensorFlow.

    Args:
      name: "cifar10" or "cifar100".
      data_dir: a TFDS data directory that holds the prepared set. If None, TFDS's own directory
        (`~/tensorflow_datasets`, or `TFDS_DATA_DIR`), where the set is downloaded and prepared on first use.

    Raises:
      UserError: if `data_dir` does not hold the set, or the download fails.
    """
    builder = open_builder(name, data_dir, _download)
    try:
        splits = {split: read_split(builder.as_data_source(split)) for split in ("train", "test")}
    except (RuntimeError, OSError, ValueError, NotImplementedError) as error:
        raise UserError(f"cannot read {name} in {builder.data_dir}, prepare it anew: {one_line(error)}") from error
    label = builder.info.features["label"]
    return Dataset(name, splits["train"], splits["test"], label.num_classes, tuple(label.names))


def open_builder(name: str, data_dir: str | None, download: Callable[[Any], None]) -> Any:
    """The builder of a set that is prepared as array_record.

    Args:
      name: TFDS's name of it.
      data_dir: see `load_tfds`.
      download: prepares a set in TFDS's own directory.

    Raises:
      UserError: if it is not there.
      DatasetNotFoundError: if TFDS knows no such set, and none lies in the directory.
    """
    if data_dir is not None and not Path(data_dir).expanduser().is_dir():
        raise UserError(f"config.data.data_dir={data_dir} is not a folder; give a TFDS data directory that has {name}")
    import tensorflow_datasets as tfds

    directory = None if data_dir is None else Path(data_dir).expanduser()
    # array_record is the one format that TFDS both prepares and reads at random without TensorFlow.
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


def _download(builder: Any) -> None:
    """Downloads and prepares CIFAR into TFDS's own directory, with TFDS's progress bars."""
    from tensorflow_datasets.core.download import extractor
    from tensorflow_datasets.image_classification import cifar

    # What TFDS 4.9.10 uses TensorFlow for on this way, done without: opening local files and reading their names
    # while it unpacks the archive; reading its binary files; encoding PNG, which it also does for Pillow's images.
    files = SimpleNamespace(
        io=SimpleNamespace(gfile=SimpleNamespace(GFile=open)), compat=SimpleNamespace(as_text=os.fspath)
    )
    with mock.patch.object(extractor, "tf", files), mock.patch.object(cifar, "_load_data", _cifar_records):
        try:
            if not urllib.request.getproxies():
                # TFDS retries ten times, over three minutes, where there is no network at all.
                socket.getaddrinfo(CIFAR_HOST, 443)
            builder.download_and_prepare()
        except Exception as error:  # TFDS raises a different type for each way in which a download can fail
            raise UserError(
                f"cannot download {builder.name} ({type(error).__name__}: {one_line(error)}); prepare it where there "
                "is a network with tensorflow-datasets (file_format='array_record') and pass --config.data.data_dir=DIR"
            ) from error


def _cifar_records(path: str, label_bytes: int = 1) -> Iterator[tuple[np.ndarray, Image.Image]]:
    """(labels, image) of each record of a file in CIFAR's binary format: labels, then red, green and blue planes."""
    records = np.fromfile(path, np.uint8).reshape(-1, label_bytes + 3 * 32 * 32)
    for record in records:
        planes = record[label_bytes:].reshape(3, 32, 32)
        yield record[:label_bytes], Image.fromarray(planes.transpose(1, 2, 0).copy())


def one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:200]


def read_split(source: Any) -> Split:
    """Reads a whole TFDS data source into memory."""
    records = source.__getitems__(range(len(source)))
    return Split(np.stack([r["image"] for r in records]), np.array([r["label"] for r in records], np.int32))
