"""Weights in several files, with an index beside them, as the Hugging Face hub has them."""

import json
import re
from collections import defaultdict
from pathlib import Path

from resnet_jax.errors import UserError, some

#: What ends the name of an index: `model.safetensors.index.json`.
INDEX_END = ".index.json"

#: Bytes above which an index is none.
LARGEST_INDEX = 2**26

_SHARD = re.compile(r"(?P<stem>.+)-\d{5}-of-\d{5}(?P<suffix>\.\w+)")


def index_beside(path: Path) -> Path | None:
    """Returns the index, if a file is one or a part of one; None for any other file.

    Raises:
      UserError: for a part whose index is not beside it.
    """
    if path.name.endswith(INDEX_END):
        return path
    match = _SHARD.fullmatch(path.name)
    if not match:
        return None
    index = path.with_name(match["stem"] + match["suffix"] + INDEX_END)
    if index.is_file():
        return index
    if re.search("-00001-of-00001", path.name):
        return None
    raise UserError(f"{path} is one of several files: {index.name} must be beside it, and the others")


def names_in(index: Path) -> dict[str, set[str]]:
    """Returns the names of the files of an index, in order, with the names of the tensors in each.

    Raises:
      UserError: if it is none.
    """
    try:
        if index.stat().st_size > LARGEST_INDEX:
            raise ValueError("it is too large")
        found = json.loads(index.read_text(encoding="utf-8"))["weight_map"]
        names: dict[str, set[str]] = defaultdict(set)
        for name, file in found.items():
            # A file elsewhere is nobody's shard.
            if not isinstance(file, str) or Path(file).name != file:
                raise ValueError(f"{str(file)[:60]!r} is no file beside it")
            names[file].add(name)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise UserError(f"{index} is no index of weights: {type(error).__name__}: {error}") from error
    if not names:
        raise UserError(f"{index} names no files")
    return dict(sorted(names.items()))


def shards_of(index: Path) -> dict[Path, set[str]]:
    """Returns the files of an index, as `names_in` does.

    Raises:
      UserError: if it is none, or files that it names are missing.
    """
    names = names_in(index)
    if missing := [file for file in names if not (index.parent / file).is_file()]:
        raise UserError(f"{index} names {len(names)} files, of which {some(missing, 4)} is not there")
    return {index.parent / file: tensors for file, tensors in names.items()}
