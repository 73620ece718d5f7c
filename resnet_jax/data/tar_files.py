"""Lists the files in a tar without unpacking it; no header can make it read more than the tar has."""

import tarfile
from collections.abc import Iterator
from typing import BinaryIO, NamedTuple, cast

#: What reading a damaged tar raises.
TAR_ERRORS = (OSError, EOFError, tarfile.TarError, ValueError, OverflowError, RecursionError)


class Member(NamedTuple):
    """Describes a file in a tar: its name with folders, where its bytes begin, and how many there are."""

    name: str
    offset: int
    size: int


def members(file: BinaryIO, begin: int, size: int) -> Iterator[Member]:
    """Yields the regular files in a tar, in their order.

    Args:
      file: that the tar is in; its position changes.
      begin: where the tar begins in it.
      size: bytes of the tar, or for a compressed one the most that it may have.

    Raises:
      one of TAR_ERRORS: if the tar is damaged, a file in it is sparse, or one reaches beyond the tar's end.
    """
    part = cast(BinaryIO, _Part(file, begin, size))
    with tarfile.open(fileobj=part, mode="r:") as tar:
        for found in tar:
            if not found.isfile():
                continue
            if found.issparse():
                raise tarfile.ReadError(f"{found.name[:80]!r} is a sparse file")
            if not 0 <= found.size <= size - found.offset_data:
                raise tarfile.ReadError(f"{found.name[:80]!r} claims {found.size:,} bytes, and the tar has {size:,}")
            yield Member(found.name, begin + found.offset_data, found.size)


class _Part:
    """Reads a part of a file. A read that asks for more gets the rest: Python's own would first take the memory."""

    def __init__(self, file: BinaryIO, begin: int, size: int) -> None:
        self._file, self._begin, self._size, self._at = file, begin, size, 0

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, whence: int = 0) -> int:
        assert whence == 0, "tarfile seeks from the beginning alone"
        self._at = offset
        return offset

    def read(self, count: int) -> bytes:
        left = max(0, self._size - self._at)
        self._file.seek(self._begin + self._at)
        data = self._file.read(max(0, min(count, left)))
        self._at += len(data)
        return data
