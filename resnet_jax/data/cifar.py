"""Reads CIFAR-10 and CIFAR-100 as their authors publish them: the binary and the Python version, packed or unpacked.

https://www.cs.toronto.edu/~kriz/cifar.html describes both.
"""

import contextlib
import dataclasses
import gzip
import hashlib
import io
import pickletools
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import BinaryIO, cast

import numpy as np

from resnet_jax.data.dataset import Dataset, Split
from resnet_jax.data.tar_files import TAR_ERRORS, members
from resnet_jax.errors import UserError, one_line

#: What a compressed file begins with.
GZIP = b"\x1f\x8b"

#: Bytes of an image: red, green and blue planes of 32 by 32 pixels, by rows.
PIXELS = 3 * 32 * 32

#: Bytes that an unpacked archive may have; the true ones have less than 200 million.
MOST_BYTES = 2**28

#: Bytes for each image of the Python version, besides its pixels: a file's name and labels. The true ones have 35.
MOST_BESIDES = 200


@dataclasses.dataclass(frozen=True)
class Version:
    """Describes one of the forms that a set is published in.

    Attributes:
      folder: that its archive unpacks to.
      archive: name of the archive on its page.
      md5: of the archive, from the page.
      train, test: names of the files, in their order; the files of a split have equally many examples.
      label_bytes: of the binary version: bytes ahead of the pixels, of which the last is the label.
      label_key: of the Python version: the key of the labels.
    """

    folder: str
    archive: str
    md5: str
    train: tuple[str, ...]
    test: tuple[str, ...]
    label_bytes: int = 0
    label_key: str = ""

    @property
    def called(self) -> str:
        return "Python" if self.label_key else "binary"


@dataclasses.dataclass(frozen=True)
class Cifar:
    """Describes a set.

    Attributes:
      classes: names by label.
      binary, python: its versions.
      train, test: numbers of examples.
    """

    classes: tuple[str, ...]
    binary: Version
    python: Version
    train: int = 50_000
    test: int = 10_000


_BATCHES = tuple(f"data_batch_{number}" for number in range(1, 6))

#: The sets by their names in `config.data.name`.
SETS = {
    "cifar10": Cifar(
        ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"),
        Version("cifar-10-batches-bin", "cifar-10-binary.tar.gz", "c32a1d4ab5d03f1284b67883e8d87530",
                tuple(f"{name}.bin" for name in _BATCHES), ("test_batch.bin",), label_bytes=1),
        Version("cifar-10-batches-py", "cifar-10-python.tar.gz", "c58f30108f718f92721af3b95e74349a",
                _BATCHES, ("test_batch",), label_key="labels"),
    ),
    "cifar100": Cifar(
        tuple("""
            apple aquarium_fish baby bear beaver bed bee beetle bicycle bottle bowl boy bridge bus butterfly camel can
            castle caterpillar cattle chair chimpanzee clock cloud cockroach couch crab crocodile cup dinosaur dolphin
            elephant flatfish forest fox girl hamster house kangaroo keyboard lamp lawn_mower leopard lion lizard
            lobster man maple_tree motorcycle mountain mouse mushroom oak_tree orange orchid otter palm_tree pear
            pickup_truck pine_tree plain plate poppy porcupine possum rabbit raccoon ray road rocket rose sea seal
            shark shrew skunk skyscraper snail snake spider squirrel streetcar sunflower sweet_pepper table tank
            telephone television tiger tractor train trout tulip turtle wardrobe whale willow_tree wolf woman worm
            """.split()),
        Version("cifar-100-binary", "cifar-100-binary.tar.gz", "03b5dce01913d631647c71ecec9e9cb8",
                ("train.bin",), ("test.bin",), label_bytes=2),
        Version("cifar-100-python", "cifar-100-python.tar.gz", "eb9058c3a382ffc7106e4002c42a8d85",
                ("train",), ("test",), label_key="fine_labels"),
    ),
}  # fmt: skip


def find_cifar(name: str, place: Path) -> Dataset | None:
    """Reads a set from where it lies: its folder or archive, or a folder that holds one of these.

    Whichever version it is read from, examples come in the order of the set that tensorflow-datasets prepares.

    Args:
      name: one of SETS.
      place: a folder or an archive.

    Returns:
      The set; None if it is not there.

    Raises:
      UserError: for files that are missing, cut short or damaged.
    """
    versions = (SETS[name].binary, SETS[name].python)
    if place.is_file():
        return _read_archive(name, place, versions)
    for version in versions:
        for folder in (place / version.folder, place):
            if any((folder / file).is_file() for file in version.train):
                return _dataset(name, version, _read_folder(name, version, folder), folder)
    for version in versions:
        for archive in (place / version.archive, place / version.archive.removesuffix(".gz")):
            if archive.is_file():
                return _read_archive(name, archive, (version,))
    return None


def is_archive(path: Path) -> bool:
    """Returns whether a file begins as a tar does, compressed by gzip or not.

    Raises:
      UserError: if it cannot be read.
    """
    try:
        with path.open("rb") as file:
            head = file.read(262)
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror or error}") from error
    return head.startswith(GZIP) or head.endswith(b"ustar")


def _read_folder(name: str, version: Version, folder: Path) -> dict[str, bytes]:
    """Returns the contents of a version's files."""
    contents = {}
    for file, count in _counts(name, version).items():
        path = folder / file
        try:
            _check_size(version, count, path.stat().st_size, str(path))
            contents[file] = path.read_bytes()
        except OSError as error:
            raise UserError(f"{path} cannot be read: {error.strerror or error}") from error
    return contents


def _read_archive(name: str, path: Path, versions: tuple[Version, ...]) -> Dataset | None:
    """Reads a tar, compressed or not, without unpacking it; None if it holds none of the versions."""
    wanted = {file: (version, count) for version in versions for file, count in _counts(name, version).items()}
    contents: dict[str, bytes] = {}
    try:
        with _unpacked(path) as file:
            for member in members(file, 0, MOST_BYTES):
                base = Path(member.name).name
                if base in wanted and base not in contents:
                    _check_size(*wanted[base], member.size, f"{base} in {path}")
                    file.seek(member.offset)
                    contents[base] = file.read(member.size)
            _read_to_end(file)
    except (*TAR_ERRORS, zlib.error) as error:
        raise UserError(f"{path} is not a whole archive of {name}: {one_line(error)}") from error
    for version in versions:
        if version.train[0] in contents:
            if lost := sorted(_counts(name, version).keys() - contents):
                raise UserError(f"{path} lacks {', '.join(lost)}")
            return _dataset(name, version, contents, path)
    return None


def _read_to_end(file: BinaryIO) -> None:
    """Reads what is left, as a compressed file has its checksum at its end; raises ValueError if that is too much."""
    for _ in range(MOST_BYTES // 2**20):
        if not file.read(2**20):
            return
    raise ValueError(f"it unpacks to more than {MOST_BYTES:,} bytes")


@contextlib.contextmanager
def _unpacked(path: Path) -> Iterator[BinaryIO]:
    with path.open("rb") as file:
        packed = file.read(len(GZIP)) == GZIP
        file.seek(0)
        if packed:
            with gzip.open(file) as unpacked:
                yield cast(BinaryIO, unpacked)
        else:
            yield file


def _counts(name: str, version: Version) -> dict[str, int]:
    """Returns the number of examples in each file."""
    train, test = SETS[name].train // len(version.train), SETS[name].test // len(version.test)
    return dict.fromkeys(version.train, train) | dict.fromkeys(version.test, test)


def _check_size(version: Version, count: int, size: int, called: str) -> None:
    """Raises UserError unless a file of so many examples can have this size in bytes."""
    if version.label_bytes:
        record = version.label_bytes + PIXELS
        right, expected = size == count * record, f"{count * record:,}, {count:,} records of {record:,}"
    else:
        least = count * PIXELS
        right, expected = least < size < least + count * MOST_BESIDES, f"{least:,} and some more"
    if not right:
        raise UserError(
            f"{called} has {size:,} bytes and not {expected}: it was cut short, or is no file of CIFAR's "
            f"{version.called} version"
        )


def _dataset(name: str, version: Version, contents: Mapping[str, bytes], place: Path) -> Dataset:
    """Returns the set that a version's files hold."""
    known = SETS[name]

    def split(part: str, files: tuple[str, ...]) -> Split:
        both = [_examples(version, contents[file], f"{file} in {place}") for file in files]
        labels = np.concatenate([labels for labels, _ in both]).astype(np.int32)
        planes = np.concatenate([pixels for _, pixels in both])
        if len(labels) != getattr(known, part) or labels.max() >= len(known.classes):
            raise UserError(
                f"{place} has {len(labels):,} {part} images with labels up to {labels.max()}, and {name} has "
                f"{getattr(known, part):,} of {len(known.classes)} classes"
            )
        order = _order(part, len(labels))
        images = planes[order].reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)
        return Split(np.ascontiguousarray(images), labels[order])

    train, test = split("train", version.train), split("test", version.test)
    source = f"{version.called} version in {place}"
    return Dataset(name, train, test, len(known.classes), known.classes, source=source)


def _order(split: str, count: int) -> list[int]:
    """Returns the order that tensorflow-datasets stores a split in: by the MD5 of its name and an example's number.

    A set gives the same batches, whether that library prepared it or not.
    """
    digests = [hashlib.md5(f"{split}{number}".encode(), usedforsecurity=False).digest() for number in range(count)]
    return sorted(range(count), key=digests.__getitem__)


def _examples(version: Version, data: bytes, called: str) -> tuple[np.ndarray, np.ndarray]:
    """Returns labels, (n,), and pixels, uint8 (n, PIXELS), of a file."""
    if not version.label_key:
        records = np.frombuffer(data, np.uint8).reshape(-1, version.label_bytes + PIXELS)
        return records[:, version.label_bytes - 1], records[:, version.label_bytes :]
    try:
        labels, pixels = _pickled(data, version.label_key)
        images = np.frombuffer(pixels, np.uint8).reshape(-1, PIXELS)
        if len(labels) != len(images) or min(labels) < 0:
            raise ValueError(f"it has {len(labels):,} labels for {len(images):,} images")
    except (ValueError, IndexError, KeyError, OverflowError) as error:
        raise UserError(f"{called} is damaged, or no file of CIFAR's Python version: {one_line(error)}") from error
    return np.array(labels, np.int64), images


def _pickled(data: bytes, label_key: str) -> tuple[list[int], bytes]:
    """Returns the labels and the pixels in a pickle of the Python version.

    Nothing is unpickled, since that would call whatever a file names. Its instructions are listed: the labels are the
    numbers that follow their key, up to the next one, and the pixels are the long string, which Python 2 wrote.

    Raises:
      ValueError: if it is no pickle, or holds something else.
    """
    labels: list[int] = []
    pixels, key, by_rows = b"", "", False
    for opcode, value, _ in pickletools.genops(io.BytesIO(data)):
        if opcode.name in ("NEWTRUE", "NEWFALSE"):
            by_rows = opcode.name == "NEWFALSE"  # whether NumPy stored columns comes ahead of the bytes
        elif isinstance(value, str | bytes) and opcode.name in _STRINGS:
            text = value.decode("latin1") if isinstance(value, bytes) else value
            if len(text) >= PIXELS:
                if pixels or not by_rows:
                    raise ValueError("its images are not one array, by rows")
                pixels = text.encode("latin1")
            key = text if len(text) < PIXELS else ""
        elif key == label_key and isinstance(value, int) and opcode.name in ("BININT1", "BININT2", "BININT", "INT"):
            labels.append(value)
    if not labels or not pixels:
        raise ValueError(f"it has no {'images' if labels else repr(label_key)}")
    return labels, pixels


_STRINGS = frozenset({
    "STRING", "BINSTRING", "SHORT_BINSTRING", "UNICODE", "BINUNICODE", "SHORT_BINUNICODE", "BINBYTES", "SHORT_BINBYTES",
})  # fmt: skip
