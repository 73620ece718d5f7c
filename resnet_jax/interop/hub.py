"""Fetches files of the Hugging Face hub, through its own client and its cache."""

import contextlib
import dataclasses
import logging
import os
import re
import socket
import urllib.parse
from pathlib import Path
from typing import Any

from resnet_jax.errors import UserError, one_line
from resnet_jax.interop.facts import CONFIG, PREPROCESSOR
from resnet_jax.interop.files import HUB_FILES, HUB_INDICES
from resnet_jax.interop.shards import INDEX_END, names_in

#: What begins an address: hf:OWNER/NAME, hf:OWNER/NAME@REVISION, hf:OWNER/NAME@REVISION:FILE.
PREFIX = "hf:"

_ADDRESS = re.compile(r"hf:(?P<repo>[\w.-]+/[\w.-]+)(@(?P<revision>[\w./-]+))?(:(?P<file>[\w./-]+))?")


@dataclasses.dataclass(frozen=True)
class HubFile:
    """Holds a file in the client's cache.

    Attributes:
      path: where it lies.
      repo: OWNER/NAME.
      revision: the commit that it is of.
      file: its name there.
    """

    path: Path
    repo: str
    revision: str
    file: str


def fetch(address: str) -> HubFile:
    """Downloads a file, or takes it from the cache, with the facts beside it. Of an index, all its files.

    Without a file's name: the first of `files.HUB_FILES` or `files.HUB_INDICES` that there is.

    Raises:
      UserError: for an address that is none, and if the hub cannot be reached or has no such file.
    """
    match = _ADDRESS.fullmatch(address)
    if not match:
        raise UserError(f"{address} must be hf:OWNER/NAME, with @REVISION and :FILE behind it if need be")
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError, RepositoryNotFoundError

    logging.getLogger("huggingface_hub").setLevel(logging.ERROR)  # one clear line is ours
    repo, revision = match["repo"], match["revision"]
    here: dict[str, Any] = {"revision": revision, "local_files_only": not _reachable()}
    names = (match["file"],) if match["file"] else (*HUB_FILES, *HUB_INDICES)

    def download(name: str) -> Path:
        try:
            return Path(hf_hub_download(repo, name, **here))
        except LocalEntryNotFoundError as error:  # a kind of EntryNotFoundError, that speaks of the network
            raise UserError(
                f"cannot get {address}: the hub cannot be reached, and {name} is not in its local cache"
            ) from error
        except EntryNotFoundError:
            raise
        except RepositoryNotFoundError as error:
            raise UserError(f"cannot get {address}: no such model, or it needs a login") from error
        except Exception as error:  # of the client, of whatever carries its requests, of the disk
            raise UserError(f"cannot get {address}: {type(error).__name__}: {one_line(error)}") from error

    for name in names:
        try:
            path = download(name)
        except EntryNotFoundError:
            continue
        beside = name[: name.rfind("/") + 1]  # the folder: an index names files beside it
        for part in names_in(path) if name.endswith(INDEX_END) else ():
            try:
                download(beside + part)
            except EntryNotFoundError as error:
                raise UserError(f"cannot get {address}: {name} names {part}, which is not there") from error
        for facts in (CONFIG, PREPROCESSOR):  # most have one, or none
            with contextlib.suppress(Exception):
                hf_hub_download(repo, beside + facts, **here)
        return HubFile(path, repo, _commit(path) or revision or "unknown", name)
    raise UserError(f"cannot get {address}: it has no {' or '.join(names[:2])}")


def _reachable() -> bool:
    """Returns whether the hub answers. Its client would try for half a minute, with a warning each time."""
    if any(os.environ.get(name) for name in ("HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy")):
        return True  # names may be resolved by the proxy alone
    from huggingface_hub import constants

    parts = urllib.parse.urlsplit(constants.ENDPOINT)
    try:
        with socket.create_connection((parts.hostname or "", parts.port or 443), timeout=5):
            return True
    except OSError:
        return False


def _commit(path: Path) -> str | None:
    """Returns the commit in a path of the cache: snapshots/COMMIT/FILE."""
    parts = path.parts
    return parts[parts.index("snapshots") + 1] if "snapshots" in parts[:-1] else None
