"""Values that a file of weights may build, and the few functions that build them; see `pickles`."""

import dataclasses
import math
import re
from collections.abc import Callable
from typing import Any

import numpy as np

#: Element types of PyTorch's storages, little-endian; bfloat16 as its bits.
STORAGES = {
    "DoubleStorage": "f8", "FloatStorage": "f4", "HalfStorage": "f2", "BFloat16Storage": "bfloat16",
    "LongStorage": "i8", "IntStorage": "i4", "ShortStorage": "i2", "CharStorage": "i1", "ByteStorage": "u1",
    "BoolStorage": "?",
}  # fmt: skip

#: Above these, a number or a text is no size and no key: comparing and hashing long ones over and over takes hours.
LARGEST, LONGEST_KEY = 2**63, 1000


@dataclasses.dataclass(frozen=True)
class Storage:
    """Names a block of numbers elsewhere in the file: its key there, element type and number of elements."""

    key: str
    dtype: str
    count: int


@dataclasses.dataclass(frozen=True)
class Strided:
    """Describes a tensor as a view of a storage: offset and strides are in elements."""

    storage: Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


@dataclasses.dataclass(frozen=True)
class Unread:
    """Stands for an object that is not read: everything that the file does to it is passed over.

    Attributes:
      path: module and name of what the file says it is.
    """

    path: str


@dataclasses.dataclass(frozen=True)
class Name:
    """Holds what a file refers to by module and name, of those that are known."""

    path: str


@dataclasses.dataclass
class Dtype:
    """Holds a type of NumPy's, whose byte order comes after it."""

    dtype: np.dtype


class Damaged(ValueError):
    """Raised for instructions that make no sense, or that no writer of weights emits."""


def _whole(values: Any) -> tuple[int, ...]:
    if not isinstance(values, tuple) or len(values) > 8 or not all(type(v) is int and 0 <= v < LARGEST for v in values):
        raise Damaged("sizes that are none")
    return values


def _strided(storage: Any, offset: Any, shape: Any, strides: Any, *rest: Any) -> Strided | Unread:
    if isinstance(storage, Unread):
        return storage
    shape, strides = _whole(shape), _whole(strides)
    (offset,) = _whole((offset,))
    if not isinstance(storage, Storage) or len(shape) != len(strides):
        raise Damaged("a tensor without storage or strides")
    last = offset + sum((n - 1) * stride for n, stride in zip(shape, strides, strict=True))
    # More elements than its storage has would be a tensor that a few bytes blow up.
    if 0 not in shape and (last >= storage.count or math.prod(shape) > storage.count):
        raise Damaged(f"a tensor {shape} reaches beyond its {storage.count} elements")
    return Strided(storage, offset, shape, strides)


def _parameter(data: Any, *rest: Any) -> Any:
    return data


def _subclass(function: Any, kind: Any, arguments: Any, state: Any) -> Any:
    """Returns the tensor that is of a class of its own, as fastai's are."""
    known = ("torch._utils._rebuild_tensor_v2", "torch._utils._rebuild_tensor")
    if isinstance(function, Name) and function.path in known and isinstance(arguments, tuple):
        return _strided(*arguments)
    return kind if isinstance(kind, Unread) else Unread("torch._tensor._rebuild_from_type_v2")


def _mapping(items: Any = ()) -> dict[Any, Any] | Unread:
    if not isinstance(items, list | tuple):
        return Unread("collections.OrderedDict")
    found: dict[Any, Any] = {}
    for item in items:
        key, value = item
        put(found, key, value)
    return found


def _dtype(kind: Any, *rest: Any) -> Dtype | Unread:
    if not isinstance(kind, str) or not re.fullmatch(r"[<>|=]?[biuf][1248]|bool", kind):
        return Unread("numpy.dtype")
    return Dtype(np.dtype(kind))


def _scalar(kind: Any, data: Any) -> Any:
    if not isinstance(kind, Dtype) or not isinstance(data, bytes):
        return Unread("numpy.core.multiarray.scalar")
    if len(data) != kind.dtype.itemsize:
        raise Damaged("a number without its bytes")
    return np.frombuffer(data, kind.dtype)[0].item()


def _encode(text: Any, encoding: Any) -> bytes | Unread:
    if not isinstance(text, str) or encoding != "latin1":
        return Unread("_codecs.encode")
    return text.encode("latin1")


#: All that a file can call, by the name that it has there.
CALLS: dict[str, Callable[..., Any]] = {
    "collections.OrderedDict": _mapping,
    "torch._utils._rebuild_tensor": _strided,
    "torch._utils._rebuild_tensor_v2": _strided,
    "torch._utils._rebuild_parameter": _parameter,
    "torch._utils._rebuild_parameter_with_state": _parameter,
    "torch._tensor._rebuild_from_type_v2": _subclass,
    "numpy.dtype": _dtype,
    "numpy.core.multiarray.scalar": _scalar,
    "numpy._core.multiarray.scalar": _scalar,
    "_codecs.encode": _encode,
}


def cost_of_call(arguments: tuple[Any, ...]) -> int:
    """Returns the bytes that a function of `CALLS` makes at most: of text, bytes and lists it makes copies."""
    sizes = (len(a) * (100 if isinstance(a, list | tuple) else 1) for a in arguments if hasattr(a, "__len__"))
    return 200 + sum(sizes)


def put(mapping: dict[Any, Any], key: Any, value: Any) -> None:
    """Sets an item; one whose key no state dict has, such as a tuple, is passed over."""
    if isinstance(key, int):
        known = abs(key) < LARGEST
    else:
        known = isinstance(key, float | None) or (isinstance(key, str) and len(key) <= LONGEST_KEY)
    if known:
        mapping[key] = value
