"""Lists what lies in a folder of images: images by their endings, folders, and what is neither."""

import os
from pathlib import Path
from typing import NamedTuple

#: Endings of image files, in small letters.
ENDINGS = frozenset({
    ".apng", ".avif", ".bmp", ".dib", ".gif", ".jfif", ".jp2", ".jpe", ".jpeg", ".jpg", ".mpo", ".pbm", ".pgm", ".png",
    ".pnm", ".ppm", ".tga", ".tif", ".tiff", ".webp",
})  # fmt: skip

#: What systems and programs put into folders, besides hidden files, in small letters.
_NO_DATA = frozenset({
    "__macosx", "thumbs.db", "desktop.ini", "@eadir", "$recycle.bin", "system volume information", "lost+found",
})  # fmt: skip


class Listing(NamedTuple):
    """Holds the entries of a folder, each list sorted by name.

    Attributes:
      images: files, or links to such, that end as images do.
      folders: folders, or links to such.
      others: all else, such as other files and links that lead nowhere.
    """

    images: list[Path]
    folders: list[Path]
    others: list[Path]


def list_folder(folder: Path) -> Listing:
    """Lists a folder, without hidden entries (`._cat.jpg`, `.DS_Store`) and what systems leave (`__MACOSX`).

    Raises:
      OSError: if it cannot be read.
    """
    found = Listing([], [], [])
    with os.scandir(folder) as entries:  # which knows files from folders without a look at each
        for entry in sorted(entries, key=lambda entry: entry.name):
            if entry.name.startswith(".") or entry.name.lower() in _NO_DATA:
                continue
            path = folder / entry.name
            if entry.is_dir():
                found.folders.append(path)
            elif path.suffix.lower() in ENDINGS and entry.is_file():
                found.images.append(path)
            else:
                found.others.append(path)
    return found
