"""Ends the processes of one run together: one that fails tells the others why.

They would else wait for it in the next sum over the devices, and then only know that it is gone.
"""

import atexit
import contextlib
import os
import threading
import time
from typing import Any

import jax
from jax._src import distributed as _state  # what processes can tell each other has no public name

from resnet_jax.errors import say

#: Where the first process that fails says why.
_KEY = "resnet_jax/failed"

#: Is there once a process has found that it did not meet that mistake.
_ALONE = "resnet_jax/failed alone"

#: Seconds between two looks whether another process failed.
_INTERVAL = 0.5

#: Seconds that a process has to end by itself: one that may meet the same mistake, and one that closes its files.
_GRACE, _LONGEST = 10, 40

#: Seconds that a process which fails waits for the others to end as well.
_LEAVE_SECONDS = 20

#: Seconds by which process 0 ends after the others: JAX's runtime aborts those that miss it.
_LAST = 1

#: Exit status of a process that ends for a mistake of another's, as for its own.
_MISTAKE = 2

_failing, _told, _said = threading.Event(), threading.Event(), threading.Event()


def watch() -> None:
    """Lets another process's `tell` end this one some seconds later, with one line, unless it ends by itself."""
    over = threading.Event()
    thread = threading.Thread(target=_watch, args=(over,), daemon=True)
    thread.start()

    def end() -> None:
        over.set()
        thread.join()

    atexit.register(end)  # called ahead of JAX's own function, which closes what the thread asks


def several() -> bool:
    """Returns whether this is one of several processes."""
    return _client() is not None


def tell(message: str) -> None:
    """Tells the other processes that this one fails, and why. From here on it has 40 seconds to end by itself."""
    if not several() or _failing.is_set():
        return
    _failing.set()
    _set(_KEY, f"{jax.process_index()} {message}")


def leave(status: int) -> None:
    """Ends one of several processes, which failed and has said so; returns in one that is alone.

    The usual exit would wait for the others until JAX's runtime aborts it.
    """
    _said.set()
    if several():
        _leave_together(status)


def give_way() -> None:
    """Returns, unless another process has told why it fails: then this one is about to be ended for that."""
    if _told.is_set():
        threading.Event().wait()


def _client() -> Any:
    """Returns what asks process 0; None where this process is alone."""
    return _state.global_state.client


def _watch(over: threading.Event) -> None:
    while (said := _get(_KEY)) is None:
        if over.wait(_INTERVAL):
            return
    _told.set()
    who, _, message = said.partition(" ")
    end = time.monotonic() + _LONGEST
    if not _failing.wait(_GRACE):
        _set(_ALONE, "")
    # One that fails alone may wait for the others in vain, as where it closes its checkpoints.
    while time.monotonic() < end and _get(_ALONE) is None:
        if over.wait(_INTERVAL):
            return
    if not _said.is_set():  # else it leaves by itself
        say(f"error: {message}" if int(who) == jax.process_index() else f"error: process {who}: {message}")
        _leave_together(_MISTAKE)


def _get(key: str) -> str | None:
    with contextlib.suppress(Exception):  # NOT_FOUND
        return str(_client().key_value_try_get(key))
    return None


def _set(key: str, value: str) -> None:
    with contextlib.suppress(Exception):  # another one did, or process 0, which keeps it, is gone
        _client().key_value_set(key, value)


def _leave_together(status: int) -> None:
    """Ends this process once all are about to end, or after some seconds; process 0, which they ask, as the last."""
    with contextlib.suppress(Exception):  # another process is gone
        _client().wait_at_barrier("resnet_jax leaves", 1000 * _LEAVE_SECONDS)
    if jax.process_index() == 0:
        time.sleep(_LAST)
    with contextlib.suppress(OSError, ValueError):
        print(end="", flush=True)
    os._exit(status)
