"""Tells sources apart: by the names and labels of their images and by sizes of files, not by pixels."""

import hashlib
from pathlib import Path

from resnet_jax.data.imagenet.shards import ShardSource
from resnet_jax.data.imagenet.source import FileSource, Source, TfdsSource


def fingerprint(source: Source) -> str:
    """Returns 12 hexadecimal digits that change with the images, their order, or a label.

    Of prepared shards their checksums enter. Of TFDS's, whose labels lie beside the images, the sizes of its files do.
    """
    found = hashlib.sha256(f"{source.num_classes} {len(source)}".encode())
    if isinstance(source, FileSource):
        for name, label in zip(source.names, source.labels, strict=True):
            found.update(f"{label} {name}\n".encode(errors="surrogateescape"))
    elif isinstance(source, ShardSource):
        found.update(" ".join(source.checksums).encode())
    elif isinstance(source, TfdsSource):
        info = source.records.dataset_info
        split = info.splits[source.split]
        sizes = [_size(Path(path)) for path in split.filepaths]
        places = None if source.places is None else source.places.tolist()
        found.update(repr((info.name, str(info.version), source.split, split.shard_lengths, sizes, places)).encode())
    return found.hexdigest()[:12]


def image_bytes(source: Source) -> list[int]:
    """Returns the size of each image in bytes, where the images are files or members of a tar; -1: it is missing."""
    if not isinstance(source, FileSource):
        return []
    if source.places is not None:
        return [size for _, size in source.places]
    paths = [source.paths] if isinstance(source.paths, Path) else source.paths
    return [_size(path) for path in paths]


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return -1
