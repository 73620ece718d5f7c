"""Exceptions that commands turn into one line and an exit status."""

import contextlib
import difflib
import sys
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

#: Zero-width joiner and non-joiner, which words of several scripts and emoji need.
JOINERS = frozenset("\u200c\u200d")

#: What errors for want of memory say that are no MemoryError: XLA's, TensorStore's, C++'s, libjpeg's, the system's.
_NO_MEMORY = ("RESOURCE_EXHAUSTED", "bad_alloc", "nsufficient memory", "annot allocate memory", "start new thread",
              "failed to map segment")  # fmt: skip

#: Bytes of free memory that are more than a small file may take; see `check_memory`.
PLENTY = 300 * 2**20


class UserError(Exception):
    """Raised for a user's mistake: commands print it as one line and exit with status 2.

    The message says what is wrong and what would be right.
    """


class Stopped(Exception):
    """Raised when a run was asked to stop and has saved its state: commands exit with 75.

    75 is EX_TEMPFAIL of sysexits.h; schedulers can be configured to restart it.
    """


class ProcessLost(Stopped):
    """Raised when one of several processes is lost, and the others cannot continue."""


def one_line(error: Exception, most: int = 200) -> str:
    """Returns the first `most` characters of an error's message in one line; its type's name where there is none."""
    return " ".join(str(error).split())[:most] or type(error).__name__


def say(text: str) -> None:
    """Prints a line to stderr; see `printable`."""
    with contextlib.suppress(OSError):  # nobody reads it
        print(printable(text), file=sys.stderr, flush=True)


def lacks_memory(error: BaseException | None) -> bool:
    """Returns whether an error, or one that led to it, is for want of memory."""
    while error is not None:
        if isinstance(error, MemoryError) or any(words in str(error) for words in _NO_MEMORY):
            return True
        error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    return False


def check_memory(error: Exception, needed: int = PLENTY) -> None:
    """Raises MemoryError if an error is for want of memory, and not because of what a damaged file claims to hold.

    The memory is short if it cannot give what a file that is whole may take. Without this, whole files would pass for
    damaged ones.

    Args:
      error: what reading a file raised.
      needed: bytes that reading it may take.
    """
    if lacks_memory(error):
        bytearray(needed)


def printable(text: str) -> str:
    """Returns a text in one line that changes nothing else on a terminal or page.

    Characters that move the cursor, set colours, begin lines or turn the direction of writing are shown as Python
    escapes: file names and class names may hold them.
    """
    hidden = {c for c in text if unicodedata.category(c) in ("Cc", "Cf", "Cs", "Co", "Zl", "Zp")} - JOINERS
    return "".join(c.encode("unicode_escape").decode() if c in hidden else c for c in text)


def some(names: Sequence[str], most: int) -> str:
    """Returns the first `most` names, and how many more there are."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more


def counted(count: int, noun: str) -> str:
    """Returns "1 run", "2 runs", "1,000 runs"."""
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def with_notes(message: str, notes: Iterable[str]) -> UserError:
    """Returns an error that says behind its message what was noticed on the way to it, all in one line."""
    return UserError("; ".join([message, *notes]))


def unknown_name(kind: str, name: str, known: Iterable[str]) -> UserError:
    """Returns the error for an unknown name, with the nearest known names."""
    known = sorted(known)
    nearest = difflib.get_close_matches(name, known, n=3, cutoff=0.5)
    hint = f"did you mean {' or '.join(nearest)}?" if nearest else f"known: {', '.join(known)}"
    return UserError(f"unknown {kind} {name!r}; {hint}")


@contextlib.contextmanager
def writing(path: str | Path) -> Iterator[None]:
    """Turns an `OSError` of the lines under it into a `UserError` that names the file or folder they write."""
    try:
        yield
    except OSError as error:
        raise UserError(f"cannot write {path}: {error.strerror or error}") from error
