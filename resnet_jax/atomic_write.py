"""Writes files atomically: a process that dies while writing leaves the old file."""

import contextlib
import glob
import json
import os
import time
from pathlib import Path
from typing import Any

from resnet_jax.errors import UserError, one_line, writing

#: Age in seconds from which on a part of a file is taken to be of a process that died.
LEFT_SECONDS = 3600


def atomic_write(path: Path, content: str | bytes) -> None:
    """Writes a file so that a kill or a loss of power leaves the old one or the new one, never a part.

    Text is stored as UTF-8. A file beside it is written first, with the host, the process and `.partial` appended to
    the name: of several processes that write one file, the last to end wins. What killed ones left is removed.

    A link stays, and the file that it leads to is written. A device or pipe, as /dev/null or /dev/stdout, takes the
    bytes as they are.

    Raises:
      OSError: if it cannot be written, as on a full disk; the old file stays.
    """
    content = content.encode() if isinstance(content, str) else content
    if path.exists() and not path.is_file() and not path.is_dir():  # replaced by a file, it would be gone for everyone
        path.write_bytes(content)
        return
    path = Path(os.path.realpath(path))
    partial = path.with_name(f"{path.name}.{os.uname().nodename[:40]}-{os.getpid()}.partial")
    try:
        with partial.open("wb") as file:
            file.write(content)
            # Otherwise a loss of power could keep the new name and lose the content.
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise
    for left in path.parent.glob(f"{glob.escape(path.name)}.*.partial"):
        with contextlib.suppress(OSError):  # another process removed it, or it is another user's
            if time.time() - left.stat().st_mtime > LEFT_SECONDS:
                left.unlink()


def write_file(path: str | Path, content: str | bytes) -> Path:
    """Writes a file as `atomic_write` does, into a folder that is made if needed, and returns its path.

    Raises:
      UserError: if it cannot be written.
    """
    path = Path(path).expanduser()
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        atomic_write(path, content)
    return path


def parse_json(text: str) -> Any:
    """Returns what a JSON text holds.

    Raises:
      ValueError: if it is no JSON, which has neither NaN nor infinity, or is nested too deeply.
    """

    def refuse(constant: str) -> None:
        raise ValueError(f"{constant} is no number of JSON's")

    try:
        return json.loads(text, parse_constant=refuse)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None


def read_json_object(path: Path) -> dict[str, Any]:
    """Reads the JSON object in a file.

    Raises:
      UserError: if it cannot be read, or holds something else.
      FileNotFoundError: if there is no such file.
    """
    try:
        value = parse_json(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise
    except (OSError, ValueError) as error:
        raise UserError(f"cannot read {path}: {one_line(error)}") from error
    if not isinstance(value, dict):
        raise UserError(f"{path} is damaged: it holds no JSON object")
    return value
