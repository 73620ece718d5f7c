"""Files as `torch.save` writes them, made without PyTorch."""

import io
import pickle
import struct
import zipfile
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np

from resnet_jax.interop.torch_files import LEGACY_MAGIC


class Stub:
    """Stands for a name of PyTorch's, which this pickler writes as such."""

    def __init__(self, path: str, *arguments: object):
        self.path, self.arguments = path, arguments

    def __reduce__(self):
        return _Global(self.path), self.arguments


class _Global:
    def __init__(self, path: str):
        self.path = path

    def __call__(self):
        raise AssertionError


class Storage:
    def __init__(self, kind: str, key: str, count: int):
        self.kind, self.key, self.count = kind, key, count


class Pickler(pickle._Pickler):
    """Python's own, that writes `_Global` by its name and `Storage` as PyTorch does."""

    def save(self, obj, save_persistent_id=True):
        if isinstance(obj, _Global):
            module, _, name = obj.path.rpartition(".")
            self.write(b"c" + f"{module}\n{name}\n".encode())
            return
        super().save(obj, save_persistent_id)

    def persistent_id(self, obj):
        if isinstance(obj, Storage):
            return ("storage", _Global(f"torch.{obj.kind}"), obj.key, "cpu", obj.count)
        return None


def pickled(value: object) -> bytes:
    stream = io.BytesIO()
    Pickler(stream, 2).dump(value)
    return stream.getvalue()


def tensor(kind: str, key: str, count: int, offset: int, shape: tuple, strides: tuple) -> Stub:
    return Stub(
        "torch._utils._rebuild_tensor_v2", Storage(kind, key, count), offset, shape, strides, False, OrderedDict()
    )


def zipped(path: Path, value: object, storages: dict[str, bytes], raw: bytes | None = None,
           compression: int = zipfile.ZIP_STORED) -> Path:  # fmt: skip
    with zipfile.ZipFile(path, "w", compression) as archive:
        archive.writestr("net/data.pkl", raw if raw is not None else pickled(value))
        for key, data in storages.items():
            archive.writestr(f"net/data/{key}", data)
    return path


def legacy(path: Path, value: object, storages: dict[str, np.ndarray]) -> Path:
    parts = [pickled(LEGACY_MAGIC), pickled(1001), pickled({"little_endian": True}), pickled(value)]
    parts.append(pickled(list(storages)))
    parts += (struct.pack("<q", array.size) + array.tobytes() for array in storages.values())
    path.write_bytes(b"".join(parts))
    return path


#: PyTorch's storages by NumPy's types.
KINDS = {"f4": "FloatStorage", "f2": "HalfStorage", "f8": "DoubleStorage", "i8": "LongStorage", "i4": "IntStorage"}


def save(path: Path, value: object, write: Any = zipped) -> Path:
    """Writes a value whose NumPy arrays become tensors, each with a storage of its own."""
    storages: dict[str, np.ndarray] = {}

    def made(one: object) -> object:
        if isinstance(one, np.ndarray):
            key, shape = str(len(storages)), one.shape
            storages[key] = np.ascontiguousarray(one)
            strides = tuple(np.cumprod((1, *shape[:0:-1]))[::-1].tolist()) if shape else ()
            return tensor(KINDS[one.dtype.str[1:]], key, one.size, 0, shape, strides)
        if type(one) in (dict, OrderedDict):
            return type(one)((key, made(item)) for key, item in one.items())
        return [made(item) for item in one] if isinstance(one, list) else one

    whole = made(value)
    if write is zipped:
        return zipped(path, whole, {key: array.tobytes() for key, array in storages.items()})
    return legacy(path, whole, storages)
