"""Prepared shards: array_record files of images with labels, and the manifest that lists them."""

import dataclasses
import hashlib
import json
import struct
import threading
import zlib
from bisect import bisect_right
from collections.abc import Sequence
from itertools import accumulate
from pathlib import Path
from typing import Any

from array_record.python.array_record_module import ArrayRecordReader

from resnet_jax.data.imagenet.source import Example, RecordError
from resnet_jax.errors import UserError, check_memory, one_line

FORMAT = 1

#: Checksum of what follows; label; length of the name. The name and the image's file follow.
_HEAD = struct.Struct("<IiH")


def pack(example: Example) -> bytes:
    """Encodes one record."""
    name = example.name.encode(errors="surrogateescape")  # a file system takes any bytes
    body = _HEAD.pack(0, example.label, len(name))[4:] + name + example.data
    return struct.pack("<I", zlib.crc32(body)) + body


def unpack(record: bytes) -> Example:
    """Decodes what `pack` encoded; raises RecordError if a bit has changed."""
    if len(record) < _HEAD.size:
        raise RecordError(f"a record of {len(record)} bytes")
    checksum, label, count = _HEAD.unpack_from(record)
    if zlib.crc32(memoryview(record)[4:]) != checksum:
        raise RecordError("the checksum differs")
    name = record[_HEAD.size : _HEAD.size + count].decode(errors="surrogateescape")
    return Example(name, label, record[_HEAD.size + count :])


def manifest_path(directory: Path, split: str) -> Path:
    """Returns the path of the file that lists a split's shards."""
    return directory / f"{split}.json"


class ShardSource:
    """Reads one split of a prepared directory; see `Source`."""

    def __init__(self, directory: str | Path, split: str) -> None:
        """Reads the manifest and checks that all shards are there in full length.

        Raises:
          UserError: naming the shard that is missing, short or not an array_record file.
        """
        self.directory, self.split = Path(directory).expanduser(), split
        self._manifest = read_manifest(self.directory, split)
        self._paths = [self.directory / shard["file"] for shard in self._manifest["shards"]]
        for path, shard in zip(self._paths, self._manifest["shards"], strict=True):
            _check_length(path, shard["bytes"])
        self._ends = list(accumulate(shard["records"] for shard in self._manifest["shards"]))
        self._readers: dict[int, Any] = {}
        self._lock = threading.Lock()

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_readers": {}, "_lock": None}  # readers do not travel to other processes

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__ |= state | {"_lock": threading.Lock()}

    @property
    def num_classes(self) -> int:
        return self._manifest["classes"]

    @property
    def checksums(self) -> list[str]:
        """SHA-256 of each shard, as it was written."""
        return [shard["sha256"] for shard in self._manifest["shards"]]

    def __len__(self) -> int:
        return self._ends[-1]

    def load(self, index: int) -> Example:
        shard = bisect_right(self._ends, index)
        place = index - (self._ends[shard - 1] if shard else 0)
        try:
            record = self._reader(shard).read([place])[0]
        except (RuntimeError, OSError, ValueError, IndexError) as error:
            check_memory(error)
            raise RecordError(one_line(error)) from error
        return unpack(record)

    def name(self, index: int) -> str:
        shard = bisect_right(self._ends, index)
        return f"{self._paths[shard].name}[{index - (self._ends[shard - 1] if shard else 0)}]"

    def _reader(self, shard: int) -> Any:
        with self._lock:
            if shard not in self._readers:
                # Reads are random, and reading ahead would take memory for every shard.
                self._readers[shard] = ArrayRecordReader(str(self._paths[shard]), "readahead_buffer_size:0")
            return self._readers[shard]


def read_manifest(directory: Path, split: str) -> dict[str, Any]:
    """Reads what `prepare` wrote when a split was finished; raises UserError if that is missing or unknown."""
    path = manifest_path(directory, split)
    try:
        manifest = json.loads(path.read_text())
    except FileNotFoundError as error:
        raise UserError(
            f"{directory} holds no finished {path.name}; make it with python -m resnet_jax prepare imagenet"
        ) from error
    except (OSError, ValueError) as error:
        raise UserError(f"{path} cannot be read: {error}") from error
    if manifest.get("format") != FORMAT or not manifest.get("shards"):
        raise UserError(f"{path} is of another format than this version's; prepare the set anew")
    return manifest


def _check_length(path: Path, expected: int) -> None:
    try:
        found = path.stat().st_size
    except OSError as error:
        raise UserError(f"shard {path} is missing; the prepare command writes it again") from error
    if found != expected:
        raise UserError(
            f"shard {path} has {found:,} bytes and not {expected:,}: it was cut short or changed; remove it, and the "
            "prepare command writes it again"
        )


def sha256(path: Path) -> str:
    """Returns the SHA-256 of a file in hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@dataclasses.dataclass(frozen=True)
class Shard:
    """Describes one finished shard, in a JSON file beside it.

    Attributes:
      file, bytes, sha256: name, size and checksum of the file.
      first, records: index of the first example in the source, and number of records.
      counts: number of images by kind: rgb, grayscale, cmyk, png ...
      skipped: [name, why] of those that could not be decoded.
      plan: identifies the preparation that the shard belongs to.
    """

    file: str
    first: int
    records: int
    bytes: int
    sha256: str
    counts: dict[str, int]
    skipped: Sequence[Sequence[str]]
    plan: str
