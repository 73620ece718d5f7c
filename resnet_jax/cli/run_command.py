"""Runs commands: quiet libraries, one line for a user's mistake, an exit status."""

import contextlib
import errno
import io
import logging
import os
import sys
import warnings
from collections.abc import Callable

from resnet_jax.cache import use_compilation_cache
from resnet_jax.errors import ProcessLost, Stopped, UserError, printable
from resnet_jax.malloc_tuning import keep_freed_memory

#: Exit statuses: a user's mistake; a run that saved its state and can be continued (EX_TEMPFAIL); Ctrl-C before there
#: was anything to save, and a reader that is gone, as of `summary NET | head` (128 + SIGINT and SIGPIPE, as in shells).
MISTAKE, STOPPED, INTERRUPTED, BROKEN_PIPE = 2, 75, 130, 141

#: What stands in the way of a file, rather than in the code.
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO)

#: Libraries that log at length about what they also raise. JAX's log stays: it says when a GPU cannot be used.
QUIET_LOGS = ("absl", "asyncio", "orbax", "etils", "tensorflow_datasets")

#: Libraries whose warnings are about code, and no concern of the user's.
QUIET_WARNINGS = ("absl", "jax", "orbax", "PIL", "etils", "tensorflow_datasets")


def run_command(command: Callable[[], object], compilation_cache: bool = True) -> int:
    """Runs a command and returns its exit status.

    With `compilation_cache`, compiled programs are kept; see `cache.use_compilation_cache`.
    """
    if compilation_cache:
        use_compilation_cache()
    keep_freed_memory()
    _quieten()
    hide_late_threads()
    _write_anything()
    try:
        status = _carry_out(command)
        if sys.stdout is not None:
            sys.stdout.flush()  # what is left would fail at the exit, in more lines
        return status
    except BrokenPipeError:
        _discard_output()
        return BROKEN_PIPE
    except OSError as error:
        if error.errno not in FULL:
            raise
        _discard_output()
        what = f" {error.filename}" if error.filename else " the output"
        _say(f"error: cannot write{what}: {error.strerror}")
        return MISTAKE


def _carry_out(command: Callable[[], object]) -> int:
    try:
        command()
    except UserError as error:
        _say(f"error: {error}")
        if "jax" in sys.modules:
            from resnet_jax.training.distributed import all_leave

            if not all_leave():
                os._exit(MISTAKE)
        return MISTAKE
    except Stopped as stopped:
        _say(f"stopped: {stopped}")
        if isinstance(stopped, ProcessLost):
            os._exit(STOPPED)  # a normal exit would wait for the lost process
        return STOPPED
    except KeyboardInterrupt:
        _say("stopped at once; the same command goes on from the newest checkpoint")
        return INTERRUPTED
    except RuntimeError as error:
        if "Unable to initialize backend" not in str(error):
            raise
        _say(f"error: {' '.join(str(error).split())}")  # by JAX_PLATFORMS
        return MISTAKE
    except SystemExit as exit:
        # rich ends a command so, with status 1, where its output is a pipe that nobody reads.
        if exit.code == 1 and isinstance(exit.__context__, BrokenPipeError):
            raise exit.__context__ from None
        if not exit.code:
            sys.stdout.flush()  # --help
        raise
    return 0


def _quieten() -> None:
    for library in QUIET_LOGS:
        logging.getLogger(library).setLevel(logging.CRITICAL)
    if not sys.warnoptions:  # python -W and PYTHONWARNINGS show them
        for library in QUIET_WARNINGS:
            warnings.filterwarnings("ignore", module=rf"{library}(\.|$)")


def _write_anything() -> None:
    """Lets output be written to a terminal that cannot show some letters, as under LC_ALL=C: they are escaped."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def _discard_output() -> None:
    """Lets what is still in the buffers of stdout go nowhere, instead of failing again at the exit."""
    with contextlib.suppress(OSError, ValueError, AttributeError):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, sys.stdout.fileno())
        os.close(nowhere)


def _say(text: str) -> None:
    with contextlib.suppress(OSError):  # nobody reads it
        print(printable(text), file=sys.stderr, flush=True)


def hide_late_threads() -> None:
    """Hides that TensorStore's threads come too late to a write of Orbax that failed, which the command says itself."""
    shown = sys.unraisablehook
    if shown.__module__ == __name__:  # an earlier command of this process did it
        return

    def show(raised: "sys.UnraisableHookArgs") -> None:
        if not (isinstance(raised.exc_value, RuntimeError) and str(raised.exc_value) == "Event loop is closed"):
            shown(raised)

    sys.unraisablehook = show
