"""Runs commands: quiet libraries, one line for a user's mistake, an exit status."""

import contextlib
import errno
import io
import logging
import os
import sys
import traceback
import warnings
from collections.abc import Callable

from resnet_jax.cache import use_compilation_cache
from resnet_jax.errors import ProcessLost, Stopped, UserError, lacks_memory, one_line, say
from resnet_jax.malloc_tuning import keep_freed_memory

#: Exit statuses: a user's mistake; one of ours; a run that saved its state and can be continued (EX_TEMPFAIL); Ctrl-C
#: before there was anything to save, and a reader that is gone, as of `summary NET | head` (128 + SIGINT and SIGPIPE,
#: as in shells).
MISTAKE, BUG, STOPPED, INTERRUPTED, BROKEN_PIPE = 2, 1, 75, 130, 141

#: What stands in the way of a file, rather than in the code.
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO)

#: Ends the processes of a run together; it is imported where there are several.
_SHUTDOWN = "resnet_jax.training.shutdown"

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
        print(end="", flush=True)  # what is left would fail at the exit, in more lines
        return status
    except BrokenPipeError:
        _discard_output()
        return BROKEN_PIPE
    except OSError as error:
        if error.errno not in FULL:
            raise
        _discard_output()
        what = f" {error.filename}" if error.filename else " the output"
        return _failed(f"cannot write{what}: {error.strerror}")


def _carry_out(command: Callable[[], object]) -> int:
    try:
        command()
    except UserError as error:
        return _failed(str(error))
    except Stopped as stopped:
        if isinstance(stopped, ProcessLost):
            from resnet_jax.training.shutdown import give_way

            give_way()
        say(f"stopped: {stopped}")
        if isinstance(stopped, ProcessLost):
            os._exit(STOPPED)  # a normal exit would wait for the lost process
        return STOPPED
    except KeyboardInterrupt:
        say("stopped at once; the same command goes on from the newest checkpoint")
        return INTERRUPTED
    except Exception as error:
        if isinstance(error, RuntimeError) and "Unable to initialize backend" in str(error):  # by JAX_PLATFORMS
            return _failed(" ".join(str(error).split()))
        if lacks_memory(error):
            return _failed(f"not enough memory ({one_line(error)}); smaller batches need less")
        if not (isinstance(error, OSError) and error.errno in (*FULL, errno.EPIPE)):
            _end_with_others(error)
        raise
    except SystemExit as exit:
        # rich ends a command so, with status 1, where its output is a pipe that nobody reads.
        if exit.code == 1 and isinstance(exit.__context__, BrokenPipeError):
            raise exit.__context__ from None
        if not exit.code:
            print(end="", flush=True)  # --help
        raise
    return 0


def _failed(message: str) -> int:
    """Says why the command fails, here and to the other processes of the run, and returns its status."""
    shutdown = sys.modules.get(_SHUTDOWN)
    if shutdown is not None:
        shutdown.tell(message)
    say(f"error: {message}")
    if shutdown is not None:
        shutdown.leave(MISTAKE)
    return MISTAKE


def _end_with_others(error: Exception) -> None:
    """Ends the other processes of a run, if there are any, with one that met a mistake of ours."""
    shutdown = sys.modules.get(_SHUTDOWN)
    if shutdown is not None and shutdown.several():
        shutdown.tell(f"{type(error).__name__}: {one_line(error)}")
        traceback.print_exception(error)
        shutdown.leave(BUG)


def _quieten() -> None:
    for library in QUIET_LOGS:
        logging.getLogger(library).setLevel(logging.CRITICAL)
    if not sys.warnoptions:  # python -W and PYTHONWARNINGS show all of them, and where they are from
        warnings.showwarning = lambda message, *_, **__: say(f"warning: {one_line(message)}")
        warnings.filterwarnings("ignore", "coroutine .* was never awaited")  # Orbax's, behind an error that is told
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


def hide_late_threads() -> None:
    """Hides what comes after a command's own last words.

    TensorStore's threads come too late to a write of Orbax that failed, and where memory is short, JAX's clean-up fails
    as well. On a full disk, what a file still holds fails once more as it is closed, which Python 3.13 says.
    """
    shown = sys.unraisablehook
    if shown.__module__ == __name__:  # an earlier command of this process did it
        return

    def show(raised: "sys.UnraisableHookArgs") -> None:
        late = isinstance(raised.exc_value, RuntimeError) and str(raised.exc_value) == "Event loop is closed"
        full = isinstance(raised.exc_value, OSError) and raised.exc_value.errno in FULL
        if not late and not full and not lacks_memory(raised.exc_value):
            shown(raised)

    sys.unraisablehook = show
