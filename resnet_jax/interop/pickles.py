"""Reads Python pickles without running what is in them: a machine for the few instructions that tensors need.

Python's own unpickler calls whatever a file names. This one has no way to import or call anything: a name in the file
is looked up in `CALLS`, whose entries only build plain values. Any other name is an `Unread`, an object that takes
whatever the file does to it and holds nothing. Nesting costs no recursion. What is made is counted, and may not be
more than a small multiple of the file.
"""

import pickletools
from collections.abc import Callable
from typing import Any, BinaryIO

from resnet_jax.interop.pickle_values import (
    CALLS,
    LONGEST_KEY,
    STORAGES,
    Damaged,
    Dtype,
    Name,
    Storage,
    Strided,
    Unread,
    cost_of_call,
    put,
)

#: Bytes of values that a file may have made: so many for each of its bytes, never more than the third number beyond
#: its text. A state dict makes some 15 for each of its bytes, and an instruction of one byte makes at most 64.
FREE, FOR_EACH_BYTE, MOST = 2**24, 64, 200_000_000

#: Bytes of a container, of an item in a dict or in the machine's memory, and of one in a list.
CONTAINER, ITEM, REFERENCE = 64, 100, 8


def load(stream: BinaryIO, size: int) -> tuple[Any, dict[str, Storage]]:
    """Reads one pickle, up to its end.

    Args:
      stream: at the pickle's first byte.
      size: bytes of the file, by which memory is bounded.

    Returns:
      What it holds, of dict, list, tuple, numbers, text, bytes, `Strided` and `Unread`; and its storages by key.

    Raises:
      ValueError, IndexError, KeyError, TypeError: if it is damaged, or would take more memory than a file of its size
        may.
    """
    machine = _Machine(min(FREE + FOR_EACH_BYTE * size, MOST))
    for opcode, argument, _ in pickletools.genops(stream):
        if opcode.name == "STOP":
            return machine.pop(), machine.storages
        machine.run(opcode.name, argument)
    raise Damaged("it has no end")


class _Machine:
    """Holds the stack of a pickle, its marks and its memory."""

    def __init__(self, budget: int) -> None:
        self.stack: list[Any] = []
        self.below: list[list[Any]] = []
        self.memo: dict[int, Any] = {}
        self.storages: dict[str, Storage] = {}
        self.unread: dict[str, Unread] = {}
        self.budget = budget

    def pop(self) -> Any:
        return self.stack.pop()

    def pop_mark(self) -> list[Any]:
        items, self.stack = self.stack, self.below.pop()
        return items

    def charge(self, size: int) -> None:
        """Counts memory, ahead of its use."""
        self.budget -= size
        if self.budget < 0:
            raise Damaged("it makes far more of its bytes than weights do")

    def run(self, name: str, argument: Any) -> None:
        """Runs one instruction."""
        if name in ("PROTO", "FRAME"):
            return
        if name in _LITERALS:
            self.charge(CONTAINER)
            self.stack.append(_LITERALS[name](argument))
        elif name in ("GLOBAL", "STACK_GLOBAL"):
            self.stack.append(self._named(argument))
        elif name == "MARK":
            self.charge(CONTAINER)
            self.below.append(self.stack)
            self.stack = []
        elif name in ("PUT", "BINPUT", "LONG_BINPUT", "MEMOIZE"):
            self.charge(ITEM)
            self.memo[len(self.memo) if name == "MEMOIZE" else int(argument)] = self.stack[-1]
        elif name in ("GET", "BINGET", "LONG_BINGET", "DUP"):
            self.charge(REFERENCE)
            self.stack.append(self.stack[-1] if name == "DUP" else self.memo[int(argument)])
        elif name == "POP":
            # Behind a mark there is nothing: then it is the mark that is taken away.
            _ = self.pop() if self.stack else self.pop_mark()
        elif name == "POP_MARK":
            self.pop_mark()
        elif name in _TAKERS:
            _TAKERS[name](self)
        elif name in ("REDUCE", "NEWOBJ"):
            arguments, function = self.pop(), self.pop()
            self.stack.append(self._call(function, arguments))
        elif name == "NEWOBJ_EX":
            _, arguments, function = self.pop(), self.pop(), self.pop()
            self.stack.append(self._call(function, arguments))
        elif name in ("INST", "OBJ"):
            items = self.pop_mark()
            function = self._named(argument) if name == "INST" else items.pop(0)
            self.charge(CONTAINER + REFERENCE * len(items))
            self.stack.append(self._call(function, tuple(items)))
        elif name == "BUILD":
            self._set_state(self.pop())
        elif name == "BINPERSID":
            self.charge(ITEM)
            self.stack.append(self._storage(self.pop()))
        else:
            raise Damaged(f"it has the instruction {name}, which weights do not need")

    def make_tuple(self, count: int | None = None) -> None:
        """Puts a tuple of the last values, or of those behind a mark, in their place."""
        items = self.pop_mark() if count is None else [self.pop() for _ in range(count)][::-1]
        self.charge(CONTAINER + REFERENCE * len(items))
        self.stack.append(tuple(items))

    def make_list(self) -> None:
        """Puts a list in the place of the values behind a mark."""
        items = self.pop_mark()
        self.charge(CONTAINER)
        self.stack.append(items)

    def make_dict(self) -> None:
        """Puts a dict in the place of the keys and values behind a mark."""
        items = self.pop_mark()
        self.charge(CONTAINER)
        self.stack.append({})
        self._set_items(items)

    def append(self, many: bool) -> None:
        """Adds the last value, or those behind a mark, to the list, or set, below."""
        items = self.pop_mark() if many else [self.pop()]
        self.charge(REFERENCE * len(items))
        if not isinstance(self.stack[-1], Unread):
            self._top(list).extend(items)

    def set_items(self, many: bool) -> None:
        """Sets an item, or those behind a mark, of the dict below."""
        self._set_items(self.pop_mark() if many else [self.pop(), self.pop()][::-1])

    def _set_items(self, items: list[Any]) -> None:
        self.charge(ITEM * len(items) // 2)
        if not isinstance(self.stack[-1], Unread):
            for key, value in zip(items[::2], items[1::2], strict=True):
                put(self._top(dict), key, value)

    def _top(self, kind: type) -> Any:
        if not isinstance(self.stack[-1], kind):
            raise Damaged(f"a {type(self.stack[-1]).__name__} in the place of a {kind.__name__}")
        return self.stack[-1]

    def _call(self, function: Any, arguments: Any) -> Any:
        if isinstance(function, Unread):
            return function
        if not isinstance(function, Name) or not isinstance(arguments, tuple):
            raise Damaged("it calls what is no function")
        if function.path not in CALLS:
            return Unread(function.path)
        self.charge(cost_of_call(arguments))
        return CALLS[function.path](*arguments)

    def _named(self, argument: str | None) -> Name | Unread:
        if argument is None:
            name, module = self.pop(), self.pop()
            if not isinstance(name, str) or not isinstance(module, str) or len(name) + len(module) > LONGEST_KEY:
                raise Damaged("a name that is no text")
            path = f"{module}.{name}"
        else:
            path = argument.replace(" ", ".")
        self.charge(CONTAINER)
        if path in CALLS or path.removeprefix("torch.") in STORAGES:
            return Name(path)
        if path not in self.unread:
            self.charge(ITEM + len(path))
            self.unread[path] = Unread(path)
        return self.unread[path]

    def _set_state(self, state: Any) -> None:
        """Takes what comes after an object: attributes, which nothing here needs, or NumPy's byte order."""
        top = self.stack[-1]
        if isinstance(top, Dtype):
            if not isinstance(state, tuple) or len(state) < 2 or state[1] not in ("<", ">", "|", "="):
                raise Damaged("a byte order that is none")
            top.dtype = top.dtype.newbyteorder(state[1])
        elif not isinstance(top, dict | Unread | Strided):
            raise Damaged(f"it sets the state of a {type(top).__name__}")

    def _storage(self, reference: Any) -> Storage | Unread:
        match reference:
            case ("storage", Name(path), str(key), _, int(count), *rest) if rest in ([], [None]):
                dtype = STORAGES.get(path.removeprefix("torch."))
            case ("storage", Unread(path), *_) | ("module", Unread(path), *_):
                return Unread(path)  # of quantised numbers, say; or a net's class with its source
            case _:
                raise Damaged("a storage that is described in an unknown way")
        if dtype is None:
            raise Damaged("a storage of an unknown type")
        if count < 0 or len(key) > LONGEST_KEY:
            raise Damaged("a storage of an unknown size or name")
        storage = Storage(key, dtype, count)
        if self.storages.setdefault(key, storage) != storage:
            raise Damaged(f"storage {key!r:.40} is described in two ways")
        return storage


#: Instructions that take values off the stack, and put one there that holds them.
_TAKERS: dict[str, Callable[[_Machine], None]] = {
    **{f"TUPLE{count}": lambda machine, count=count: machine.make_tuple(count) for count in (1, 2, 3)},  # type: ignore[misc]
    "TUPLE": _Machine.make_tuple,
    "LIST": _Machine.make_list,
    "DICT": _Machine.make_dict,
    "FROZENSET": lambda machine: machine.stack.append(_unread_set(machine.pop_mark())),
    "APPEND": lambda machine: machine.append(many=False),
    "APPENDS": lambda machine: machine.append(many=True),
    "ADDITEMS": lambda machine: machine.append(many=True),
    "SETITEM": lambda machine: machine.set_items(many=False),
    "SETITEMS": lambda machine: machine.set_items(many=True),
}


def _unread_set(items: Any) -> Unread:
    return Unread("builtins.set")  # its values would have to be hashed, and no tensor is in one


#: Instructions that push a value made of nothing but their argument.
_LITERALS: dict[str, Callable[[Any], Any]] = {
    "NONE": lambda _: None,
    "NEWTRUE": lambda _: True,
    "NEWFALSE": lambda _: False,
    "EMPTY_TUPLE": lambda _: (),
    "EMPTY_LIST": lambda _: [],
    "EMPTY_DICT": lambda _: {},
    "EMPTY_SET": _unread_set,
    **dict.fromkeys(
        (
            "INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4", "FLOAT", "BINFLOAT", "UNICODE",
            "BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8", "STRING", "BINSTRING", "SHORT_BINSTRING", "BINBYTES",
            "SHORT_BINBYTES", "BINBYTES8", "BYTEARRAY8",
        ),
        lambda value: value,
    ),
}  # fmt: skip
