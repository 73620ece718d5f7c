"""Sources of single images: files, or parts of a file, by index."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np

from resnet_jax.errors import check_memory, one_line


class Example(NamedTuple):
    """Holds a stored image: its name, its label and the bytes of its file."""

    name: str
    label: int
    data: bytes


class RecordError(ValueError):
    """Raised for a record that cannot be read, or is not what was written."""


class Source(Protocol):
    """Gives examples by index. It is safe for threads, and can be sent to worker processes."""

    @property
    def num_classes(self) -> int:
        """Number of classes."""
        ...

    def __len__(self) -> int: ...

    def load(self, index: int) -> Example:
        """Reads an example; raises RecordError if that fails."""
        ...

    def name(self, index: int) -> str:
        """Returns what messages call an example."""
        ...


class Splits(NamedTuple):
    """Holds the parts of a set.

    Attributes:
      train, test: images to train on, and to evaluate on.
      evaluated_on: what the latter are: "test", "validation" or "held_out".
      remarks: sentences on files that were left out.
    """

    train: Source
    test: Source
    evaluated_on: str = "test"
    remarks: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True)
class FileSource:
    """Reads images that are files, or members of a tar.

    Attributes:
      names, labels: of the images.
      paths: the file of each, or one file for all.
      places: (offset, bytes) of each image in its file; None: images are whole files.
      num_classes: number of classes.
      classes: their names, by label, where folders have them.
    """

    names: Sequence[str]
    labels: Sequence[int]
    paths: Sequence[Path] | Path
    places: Sequence[tuple[int, int]] | None
    num_classes: int
    classes: Sequence[str] = ()

    def __len__(self) -> int:
        return len(self.names)

    def load(self, index: int) -> Example:
        path = self.paths if isinstance(self.paths, Path) else self.paths[index]
        try:
            with path.open("rb") as file:
                if self.places is None:
                    data = file.read()
                else:
                    offset, count = self.places[index]
                    file.seek(offset)
                    data = file.read(count)
        except OSError as error:
            check_memory(error)
            raise RecordError(str(error)) from error
        return Example(self.names[index], self.labels[index], data)

    def name(self, index: int) -> str:
        return self.names[index]


#: What TFDS raises for what it cannot read.
TFDS_ERRORS = (RuntimeError, OSError, ValueError)


@dataclasses.dataclass(frozen=True)
class TfdsSource:
    """Reads the encoded images of a split as TFDS stores them.

    Attributes:
      records: TFDS's data source.
      split: its name.
      classes: names by label.
      places: indices of the records that are taken; None for all.
    """

    records: Any
    split: str
    classes: tuple[str, ...]
    places: np.ndarray | None = None

    @property
    def num_classes(self) -> int:
        return len(self.classes)

    def __len__(self) -> int:
        return len(self.records) if self.places is None else len(self.places)

    def load(self, index: int) -> Example:
        try:
            record = self.records[self._place(index)]
        except TFDS_ERRORS as error:
            check_memory(error)
            raise RecordError(one_line(error)) from error
        name = record.get("file_name", self.name(index))
        name = name.decode() if isinstance(name, bytes) else str(name)
        return Example(name, int(record["label"]), bytes(record["image"]))

    def name(self, index: int) -> str:
        return f"{self.split}[{self._place(index)}]"

    def _place(self, index: int) -> int:
        return index if self.places is None else int(self.places[index])
