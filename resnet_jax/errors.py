"""Exceptions that commands turn into one line and an exit status."""

import contextlib
import difflib
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

#: Zero-width joiner and non-joiner, which words of several scripts and emoji need.
JOINERS = frozenset("\u200c\u200d")


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
