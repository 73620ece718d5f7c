"""The one exception for what a user can put right."""

import difflib
from collections.abc import Iterable


class UserError(Exception):
    """A mistake in what was asked for: the command line prints it as one line and exits with status 2.

    The message says what was wrong and what would be right.
    """


class Stopped(Exception):
    """A run that was asked to stop and has saved its state: the command line says so and exits with 75.

    75 is the EX_TEMPFAIL of sysexits.h, which schedulers can be told to start again.
    """


class ProcessLost(Stopped):
    """One of several processes is gone, and the others cannot go on without it."""


def unknown_name(kind: str, name: str, known: Iterable[str]) -> UserError:
    """The error for a name that is not in a table, with the nearest names that are."""
    known = sorted(known)
    nearest = difflib.get_close_matches(name, known, n=3, cutoff=0.5)
    hint = f"did you mean {' or '.join(nearest)}?" if nearest else f"known: {', '.join(known)}"
    return UserError(f"unknown {kind} {name!r}; {hint}")
