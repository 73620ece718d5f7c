"""Where single images come from: any file, or part of a file, by its place in a list."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple, Protocol

from resnet_jax.errors import UserError


class Example(NamedTuple):
    """An image as it is stored: its name, its label and the bytes of its file."""

    name: str
    label: int
    data: bytes


class RecordError(ValueError):
    """A record that cannot be read, or is not what was written."""


class Source(Protocol):
    """Examples by their place, from 0; threads may ask at once, and worker processes may be sent one."""

    @property
    def num_classes(self) -> int:
        """How many there are."""
        ...

    def __len__(self) -> int: ...

    def load(self, index: int) -> Example:
        """One example.

        Raises:
          RecordError: if it cannot be read.
        """
        ...

    def name(self, index: int) -> str:
        """What to call it in a complaint."""
        ...


@dataclasses.dataclass(frozen=True)
class FileSource:
    """Images that are files, or lie one behind the other in a tar.

    Attributes:
      names: of the images.
      labels: from 0 to num_classes - 1.
      paths: the files they are in.
      places: (offset, bytes) in that file, None for all of it; one for each image, or one None for all.
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
        """See `Source`."""
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
            raise RecordError(str(error)) from error
        return Example(self.names[index], self.labels[index], data)

    def name(self, index: int) -> str:
        """See `Source`."""
        return self.names[index]


#: Endings of the files that are taken for images.
ENDINGS = frozenset({".jpeg", ".jpg", ".png"})


def list_folder(folder: Path) -> tuple[list[str], list[Path]]:
    """(class of each image, "" for one that lies in the folder itself; its path), sorted.

    Raises:
      UserError: if the folder or one in it cannot be read, or holds no image.
    """
    classes, paths = [], []
    try:
        for entry in sorted(folder.iterdir()):
            inside = sorted(entry.iterdir()) if entry.is_dir() else [entry]
            for path in inside:
                if path.suffix.lower() in ENDINGS:
                    classes.append(entry.name if entry.is_dir() else "")
                    paths.append(path)
    except OSError as error:
        raise UserError(f"{folder} cannot be read: {error}") from error
    if not paths:
        raise UserError(f"{folder} holds no images ({', '.join(sorted(ENDINGS))}), by class folder or flat")
    return classes, paths
