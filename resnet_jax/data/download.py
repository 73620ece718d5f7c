"""Downloads a file of a data set once, into the user's cache, and checks it."""

import hashlib
import http.client
import os
import sys
import time
import urllib.request
from pathlib import Path

import filelock
from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TimeRemainingColumn

from resnet_jax.errors import UserError, one_line

#: Seconds without an answer after which a server counts as gone.
LONGEST = 30

#: Bytes that are read at a time.
BLOCK = 2**18

#: Seconds between two lines where stderr is no terminal.
SECONDS = 10


def download_folder() -> Path:
    """Returns `$XDG_CACHE_HOME/resnet_jax/data`, or `~/.cache/resnet_jax/data`."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "resnet_jax" / "data"


def download(url: str, path: Path, md5: str) -> None:
    """Downloads a file, unless it is there; a process that finds another at it waits.

    The file gets its name when it is complete and has the MD5.

    Raises:
      UserError: if there is no network, another file is served, or it cannot be written.
    """
    if path.exists():
        return
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with filelock.FileLock(path.with_name(f"{path.name}.lock")):
            if path.exists():  # by now
                return
            part = path.with_name(f"{path.name}.part")
            digest = _fetch(url, part, path)
            if digest != md5:
                part.unlink()
                raise UserError(f"{url} gave a file of the MD5 {digest} and not {md5}; try again later")
            part.replace(path)
    except (OSError, http.client.HTTPException) as error:  # URLError is an OSError
        raise UserError(f"cannot download {url} into {path.parent} ({one_line(error)})") from error


def _fetch(url: str, part: Path, path: Path) -> str:
    """Writes what a server gives, with its progress on stderr, and returns its MD5."""
    digest = hashlib.md5(usedforsecurity=False)
    console = Console(file=sys.stderr)
    columns = (BarColumn(bar_width=30), DownloadColumn(), TimeRemainingColumn())
    with (
        urllib.request.urlopen(url, timeout=LONGEST) as answer,
        part.open("wb") as file,
        Progress(*columns, console=console, disable=not console.is_terminal) as progress,
    ):
        print(f"downloading {url} to {path}", file=sys.stderr, flush=True)
        total = int(answer.headers.get("Content-Length") or 0)
        task, done, last = progress.add_task("", total=total or None), 0, time.monotonic()
        while block := answer.read(BLOCK):
            file.write(block)
            digest.update(block)
            done += len(block)
            progress.update(task, completed=done)
            if not console.is_terminal and time.monotonic() - last >= SECONDS:
                last = time.monotonic()
                print(f"{done / 1e6:.0f} of {total / 1e6:.0f} MB", file=sys.stderr, flush=True)
        if done < total:
            raise http.client.IncompleteRead(b"", total - done)
        file.flush()
        os.fsync(file.fileno())
    return digest.hexdigest()
