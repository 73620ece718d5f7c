"""Reads PyTorch's two file formats, zip archives and the one before 1.6, into NumPy without PyTorch."""

import io
import mmap
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np

from resnet_jax.errors import PLENTY, UserError, check_memory
from resnet_jax.interop import pickles
from resnet_jax.interop.pickle_values import Damaged, Storage, Strided

#: What a file of the format before PyTorch 1.6 begins with: a pickle of this number.
LEGACY_MAGIC = 0x1950A86A20F9469CFC6C
LEGACY_START = b"\x80\x02\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19."

_DAMAGE = (
    ValueError, IndexError, KeyError, TypeError, AttributeError, EOFError, OverflowError, RecursionError, OSError,
    RuntimeError, NotImplementedError, struct.error, zipfile.BadZipFile,
)  # fmt: skip


class Tensor:
    """Reads a tensor of a file when it is asked for."""

    def __init__(self, view: Strided, read: Callable[[Storage], np.ndarray]):
        self._view, self._read = view, read
        self.shape = view.shape

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        view = self._view
        flat = self._read(view.storage)
        strides = [stride * flat.itemsize for stride in view.strides]
        if 0 in view.shape:
            return np.empty(view.shape, flat.dtype)
        array = np.lib.stride_tricks.as_strided(flat[view.offset :], view.shape, strides, writeable=False)
        return np.array(array, dtype=dtype)


def read_torch(path: Path) -> Any:
    """Reads what `torch.save` wrote: dicts, lists, numbers, text, each tensor as `Tensor`, all else as `Unread`.

    Raises:
      UserError: if the file is damaged; nothing in it is run.
    """
    try:
        with path.open("rb") as file:
            if file.read(2) == b"PK":
                found, read = _read_zip(zipfile.ZipFile(path))
            else:
                found, read = _read_legacy(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
        return _with_tensors(found, read)
    except UserError as error:
        raise UserError(f"cannot read {path}: {error}") from error
    except _DAMAGE as error:
        check_memory(error, PLENTY + path.stat().st_size)
        reason = str(error) if isinstance(error, Damaged) else f"{type(error).__name__}: {error}"
        raise UserError(f"{path} is damaged or cut off: {reason:.200}") from error


def _with_tensors(found: Any, read: Callable[[Storage], np.ndarray]) -> Any:
    """Makes the tensors in dicts and lists readable, in their places, and returns the whole. Each is visited once."""
    if isinstance(found, Strided):
        return Tensor(found, read)
    found = list(found) if isinstance(found, tuple) else found
    waiting, visited = [found], set[int]()
    while waiting:
        container = waiting.pop()
        if id(container) in visited or not isinstance(container, dict | list):
            continue
        visited.add(id(container))
        for key, value in container.items() if isinstance(container, dict) else enumerate(container):
            if isinstance(value, Strided):
                container[key] = Tensor(value, read)
            elif isinstance(value, dict | list):
                waiting.append(value)
    return found


def _read_zip(archive: zipfile.ZipFile) -> tuple[Any, Callable[[Storage], np.ndarray]]:
    names = archive.namelist()
    pickled = [name for name in names if name.endswith("/data.pkl") or name == "data.pkl"]
    if len(pickled) != 1:
        raise Damaged("a zip archive without data.pkl is not PyTorch's")
    if any(info.compress_type != zipfile.ZIP_STORED for info in archive.infolist()):
        raise Damaged("its parts are compressed, which PyTorch never does")
    root = pickled[0].removesuffix("data.pkl")
    if f"{root}constants.pkl" in names:
        raise UserError("it is TorchScript, a program; save the net's state dict alone")
    order = archive.read(f"{root}byteorder").decode() if f"{root}byteorder" in names else "little"
    data = archive.read(pickled[0])
    found, _ = pickles.load(io.BytesIO(data), len(data))

    def read(storage: Storage) -> np.ndarray:
        try:
            return _numbers(archive.read(f"{root}data/{storage.key}"), storage, order)
        except _DAMAGE as error:  # met long after the file was opened
            raise UserError(f"a PyTorch file is damaged or cut off: storage {storage.key}: {error}") from error

    return found, read


def _read_legacy(data: Any) -> tuple[Any, Callable[[Storage], np.ndarray]]:
    magic, _ = pickles.load(data, len(data))
    if magic != LEGACY_MAGIC:
        raise Damaged("it is no file of PyTorch's")
    pickles.load(data, len(data))  # the protocol's version, 1001
    system, _ = pickles.load(data, len(data))
    order = "little" if system.get("little_endian", True) else "big"
    found, storages = pickles.load(data, len(data))
    keys, _ = pickles.load(data, len(data))
    blocks: dict[str, np.ndarray] = {}
    for key in keys:
        if not isinstance(key, str):
            raise Damaged("a storage without a name")
        storage = storages[key]
        (count,) = struct.unpack("<q", data.read(8))
        if count != storage.count:
            raise Damaged(f"storage {key!r:.40} has {count} elements, not {storage.count}")
        size = count * _dtype(storage, order).itemsize
        block = data.read(size) if size <= len(data) else b""
        blocks[key] = _numbers(block, storage, order)
    if lacking := storages.keys() - blocks.keys():
        raise Damaged(f"it lacks the storage {min(lacking)!r:.40}")
    return found, lambda storage: blocks[storage.key]


def _dtype(storage: Storage, order: str) -> np.dtype:
    if storage.dtype == "bfloat16":
        return np.dtype(ml_dtypes.bfloat16)
    return np.dtype(storage.dtype).newbyteorder("<" if order == "little" else ">")


def _numbers(data: bytes, storage: Storage, order: str) -> np.ndarray:
    dtype = _dtype(storage, order)
    if len(data) < storage.count * dtype.itemsize:
        raise Damaged(f"storage {storage.key!r:.40} is cut off")
    if order != "little" and storage.dtype == "bfloat16":
        data = np.frombuffer(data, ">u2").astype("<u2").tobytes()
    return np.frombuffer(data, dtype, storage.count)
