"""CIFAR through tensorflow-datasets, downloaded and prepared without TensorFlow."""

import os
import socket
import urllib.request
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any
from unittest import mock

import numpy as np
from PIL import Image

from resnet_jax.data.dataset import Dataset
from resnet_jax.data.tfds import TfdsSet, open_builder
from resnet_jax.errors import UserError, one_line

#: Where TFDS downloads CIFAR from.
CIFAR_HOST = "www.cs.toronto.edu"


def load_tfds(name: str, data_dir: str | None = None) -> Dataset:
    """Loads CIFAR-10 or CIFAR-100 through tensorflow-datasets, without TensorFlow.

    Args:
      name: "cifar10" or "cifar100".
      data_dir: a TFDS data directory that holds the prepared set. If None, TFDS's own directory
        (`~/tensorflow_datasets`, or `TFDS_DATA_DIR`), where the set is downloaded and prepared on first use.

    Raises:
      UserError: if `data_dir` does not hold the set, or the download fails.
    """
    return TfdsSet(name, open_builder(name, data_dir, _download)).load("test")


def _download(builder: Any) -> None:
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
