"""Reads Python pickles without running what is in them: a machine for the few instructions that tensors need.

Python's own unpickler calls whatever a file names. This one has no way to import or call anything: a name in the file
is looked up in `CALLS`, whose entries only build the plain values below, and any other name is an error that says it.
Nesting costs no recursion, and no value takes more memory than the file has bytes for it.
"""

import dataclasses
import math
import pickletools
import re
from collections.abc import Callable
from typing import Any, BinaryIO

import numpy as np

from resnet_jax.errors import UserError

#: Element types of PyTorch's storages, little-endian; bfloat16 as its bits.
STORAGES = {
    "DoubleStorage": "f8", "FloatStorage": "f4", "HalfStorage": "f2", "BFloat16Storage": "bfloat16",
    "LongStorage": "i8", "IntStorage": "i4", "ShortStorage": "i2", "CharStorage": "i1", "ByteStorage": "u1",
    "BoolStorage": "?",
}  # fmt: skip


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


class Damaged(ValueError):
    """Raised for instructions that make no sense, or that no writer of weights emits."""


@dataclasses.dataclass(frozen=True)
class _Name:
    """Holds what a file refers to by module and name."""

    path: str


@dataclasses.dataclass
class _Dtype:
    """Holds a type of NumPy's, whose byte order comes after it."""

    dtype: np.dtype


def _whole(values: Any) -> tuple[int, ...]:
    if not isinstance(values, tuple) or len(values) > 8 or not all(type(v) is int and v >= 0 for v in values):
        raise Damaged("sizes that are none")
    return values


def _strided(storage: Any, offset: Any, shape: Any, strides: Any, *rest: Any) -> Strided:
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


def _mapping(items: Any = ()) -> dict[Any, Any]:
    found: dict[Any, Any] = {}
    for item in items:
        key, value = item
        _put(found, key, value)
    return found


def _dtype(kind: Any, *rest: Any) -> _Dtype:
    if not isinstance(kind, str) or not re.fullmatch(r"[<>|=]?[biuf][1248]|bool", kind):
        raise Damaged("a number of an unknown type")
    return _Dtype(np.dtype(kind))


def _scalar(kind: Any, data: Any) -> Any:
    if not isinstance(kind, _Dtype) or not isinstance(data, bytes) or len(data) != kind.dtype.itemsize:
        raise Damaged("a number without its bytes")
    return np.frombuffer(data, kind.dtype)[0].item()


def _encode(text: Any, encoding: Any) -> bytes:
    if not isinstance(text, str) or encoding != "latin1":
        raise Damaged("bytes in an unknown encoding")
    return text.encode("latin1")


def _size(values: Any = ()) -> tuple[int, ...]:
    return _whole(tuple(values))


def _text(*values: Any) -> str:
    if not all(isinstance(value, str | int) for value in values):
        raise Damaged("a device that is none")
    return ":".join(str(value) for value in values)


#: All that a file can call, by the name that it has there.
CALLS: dict[str, Callable[..., Any]] = {
    "collections.OrderedDict": _mapping,
    "torch._utils._rebuild_tensor": _strided,
    "torch._utils._rebuild_tensor_v2": _strided,
    "torch._utils._rebuild_parameter": _parameter,
    "torch.Size": _size,
    "torch.device": _text,
    "numpy.dtype": _dtype,
    "numpy.core.multiarray.scalar": _scalar,
    "numpy._core.multiarray.scalar": _scalar,
    "_codecs.encode": _encode,
}


def _put(mapping: Any, key: Any, value: Any) -> None:
    if not isinstance(key, str | int | float | bool | None):
        raise Damaged(f"a key of type {type(key).__name__}")  # hashing deep tuples would recurse
    mapping[key] = value


def load(stream: BinaryIO) -> tuple[Any, dict[str, Storage]]:
    """Reads one pickle, up to its end.

    Returns:
      What it holds, of dict, list, tuple, numbers, text, bytes and `Strided`; and its storages by key.

    Raises:
      UserError: if it names anything that is not in `CALLS`.
      ValueError, IndexError, KeyError, TypeError: if it is damaged.
    """
    machine = _Machine()
    for opcode, argument, _ in pickletools.genops(stream):
        if opcode.name == "STOP":
            return machine.pop(), machine.storages
        machine.run(opcode.name, argument)
    raise Damaged("it has no end")


class _Machine:
    """Holds the stack of a pickle, its marks and its memory."""

    def __init__(self) -> None:
        self.stack: list[Any] = []
        self.below: list[list[Any]] = []
        self.memo: dict[int, Any] = {}
        self.storages: dict[str, Storage] = {}

    def pop(self) -> Any:
        return self.stack.pop()

    def pop_mark(self) -> list[Any]:
        items, self.stack = self.stack, self.below.pop()
        return items

    def run(self, name: str, argument: Any) -> None:
        """Runs one instruction."""
        if name in ("PROTO", "FRAME"):
            return
        if name in _LITERALS:
            self.stack.append(_LITERALS[name](argument))
        elif name in ("GLOBAL", "STACK_GLOBAL"):
            self.stack.append(self._named(argument))
        elif name == "MARK":
            self.below.append(self.stack)
            self.stack = []
        elif name in ("PUT", "BINPUT", "LONG_BINPUT"):
            self.memo[int(argument)] = self.stack[-1]
        elif name == "MEMOIZE":
            self.memo[len(self.memo)] = self.stack[-1]
        elif name in ("GET", "BINGET", "LONG_BINGET"):
            self.stack.append(self.memo[int(argument)])
        elif name in ("TUPLE1", "TUPLE2", "TUPLE3"):
            items = [self.pop() for _ in range(int(name[-1]))]
            self.stack.append(tuple(reversed(items)))
        elif name in ("TUPLE", "LIST"):
            items = self.pop_mark()
            self.stack.append(tuple(items) if name == "TUPLE" else items)
        elif name in ("APPEND", "APPENDS"):
            items = [self.pop()] if name == "APPEND" else self.pop_mark()
            self._top(list).extend(items)
        elif name in ("SETITEM", "SETITEMS", "DICT"):
            items = [self.pop(), self.pop()][::-1] if name == "SETITEM" else self.pop_mark()
            if name == "DICT":
                self.stack.append({})
            for key, value in zip(items[::2], items[1::2], strict=True):
                _put(self._top(dict), key, value)
        elif name == "REDUCE":
            arguments, function = self.pop(), self.pop()
            if not isinstance(function, _Name) or function.path not in CALLS or not isinstance(arguments, tuple):
                raise Damaged("it calls what is no function")
            self.stack.append(CALLS[function.path](*arguments))
        elif name == "BUILD":
            self._set_state(self.pop())
        elif name == "BINPERSID":
            self.stack.append(self._storage(self.pop()))
        else:
            raise Damaged(f"it has the instruction {name}, which weights do not need")

    def _top(self, kind: type) -> Any:
        if not isinstance(self.stack[-1], kind):
            raise Damaged(f"a {type(self.stack[-1]).__name__} in the place of a {kind.__name__}")
        return self.stack[-1]

    def _named(self, argument: str | None) -> _Name:
        if argument is None:
            name, module = self.pop(), self.pop()
            if not isinstance(name, str) or not isinstance(module, str):
                raise Damaged("a name that is no text")
            path = f"{module}.{name}"
        else:
            path = argument.replace(" ", ".")
        if path not in CALLS and path.removeprefix("torch.") not in STORAGES:
            raise UserError(
                f"it holds an object of {path[:80]}, and only tensors, numbers and plain containers are read, as "
                "running what a file names is not safe; save the net's state dict alone"
            )
        return _Name(path)

    def _set_state(self, state: Any) -> None:
        """Takes what comes after an object: attributes of a dict, which nothing here needs, or NumPy's byte order."""
        top = self.stack[-1]
        if isinstance(top, _Dtype):
            if not isinstance(state, tuple) or len(state) < 2 or state[1] not in ("<", ">", "|", "="):
                raise Damaged("a byte order that is none")
            top.dtype = top.dtype.newbyteorder(state[1])
        elif not isinstance(top, dict):
            raise Damaged(f"it sets the state of a {type(top).__name__}")

    def _storage(self, reference: Any) -> Storage:
        match reference:
            case ("storage", _Name(path), str(key), _, int(count)) | (
                "storage",
                _Name(path),
                str(key),
                _,
                int(count),
                None,
            ):
                dtype = STORAGES.get(path.removeprefix("torch."))
            case _:
                raise Damaged("a storage that is described in an unknown way")
        if dtype is None or count < 0:
            raise Damaged("a storage of an unknown type")
        storage = Storage(key, dtype, count)
        if self.storages.setdefault(key, storage) != storage:
            raise Damaged(f"storage {key!r:.40} is described in two ways")
        return storage


#: Instructions that push a value made of nothing but their argument.
_LITERALS: dict[str, Callable[[Any], Any]] = {
    "NONE": lambda _: None,
    "NEWTRUE": lambda _: True,
    "NEWFALSE": lambda _: False,
    "EMPTY_TUPLE": lambda _: (),
    "EMPTY_LIST": lambda _: [],
    "EMPTY_DICT": lambda _: {},
    **dict.fromkeys(
        (
            "INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4", "FLOAT", "BINFLOAT", "UNICODE",
            "BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8", "STRING", "BINSTRING", "SHORT_BINSTRING", "BINBYTES",
            "SHORT_BINBYTES", "BINBYTES8",
        ),
        lambda value: value,
    ),
}  # fmt: skip
