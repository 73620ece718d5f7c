"""Writes CIFAR's files as their authors did: binary records, and pickles of Python 2 with NumPy's arrays."""

import io
import pickle
import struct
import tarfile
from pathlib import Path

import numpy as np


class Python2Pickler(pickle._Pickler):
    """Python's own, at protocol 2, that writes text and bytes as Python 2 wrote its str."""

    dispatch = dict(pickle._Pickler.dispatch)

    def save_str(self, text):
        data = text if isinstance(text, bytes) else text.encode("latin1")
        short = len(data) < 256
        self.write((pickle.SHORT_BINSTRING + bytes([len(data)]) if short else
                    pickle.BINSTRING + struct.pack("<i", len(data))) + data)  # fmt: skip
        self.memoize(text)

    def save_array(self, array):
        """What `ndarray.__reduce__` gave under Python 2, by the names that NumPy had then."""
        self.write(b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85U\x01b\x87R(K\x01")
        self.save(array.shape)
        self.write(b"cnumpy\ndtype\nU\x02u1K\x00K\x01\x87R(K\x03U\x01|NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb")
        self.write(b"\x89")
        self.save_str(array.tobytes())
        self.write(b"tb")

    dispatch[str] = dispatch[bytes] = save_str
    dispatch[np.ndarray] = save_array


def python2_pickle(value):
    stream = io.BytesIO()
    Python2Pickler(stream, 2).dump(value)
    return stream.getvalue()


def binary_files(name, train, test):
    """{path: bytes} of the binary version; `train` and `test` are (labels, images (n, 32, 32, 3))."""
    if name == "cifar10":
        parts = [(f"data_batch_{i + 1}.bin", labels, images) for i, (labels, images) in enumerate(fifths(train))]
        files = [*parts, ("test_batch.bin", *test)]
        folder, meta = "cifar-10-batches-bin", "batches.meta.txt"
    else:
        files = [("train.bin", *train), ("test.bin", *test)]
        folder, meta = "cifar-100-binary", "fine_label_names.txt"
    found = {f"{folder}/{meta}": b"names\n\n", f"{folder}/readme.html": b"<html>"}
    for file, labels, images in files:
        rows = planes(images)
        ahead = [labels] if name == "cifar10" else [labels % 20, labels]
        found[f"{folder}/{file}"] = np.column_stack([*ahead, rows]).astype(np.uint8).tobytes()
    return found


def python_files(name, train, test):
    """The same of the Python version."""
    if name == "cifar10":
        parts = [(f"data_batch_{i + 1}", labels, images) for i, (labels, images) in enumerate(fifths(train))]
        files, folder, meta = [*parts, ("test_batch", *test)], "cifar-10-batches-py", "batches.meta"
    else:
        files, folder, meta = [("train", *train), ("test", *test)], "cifar-100-python", "meta"
    found = {f"{folder}/{meta}": python2_pickle({"label_names": ["a", "b"]})}
    for file, labels, images in files:
        names = [f"picture_{number:06d}.png" for number in range(len(labels))]
        beside = {"batch_label": f"batch of {len(labels)}", "filenames": names}
        labelled = {"labels": labels.tolist()} if name == "cifar10" else {
            "fine_labels": labels.tolist(), "coarse_labels": (labels % 20).tolist()}  # fmt: skip
        found[f"{folder}/{file}"] = python2_pickle({**beside, **labelled, "data": planes(images)})
    return found


def planes(images):
    """Rows of red, green and blue planes."""
    return np.ascontiguousarray(images.transpose(0, 3, 1, 2)).reshape(len(images), -1)


def fifths(split):
    labels, images = split
    return zip(np.array_split(labels, 5), np.array_split(images, 5), strict=True)


def write(folder: Path, files):
    for name, data in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)
    return folder


def archive(files, mode="w:gz"):
    blob = io.BytesIO()
    with tarfile.open(fileobj=blob, mode=mode) as tar:
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return blob.getvalue()
