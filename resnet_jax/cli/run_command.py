"""Runs commands: quiet libraries, one line for a user's mistake, an exit status."""

import contextlib
import logging
import os
import sys
from collections.abc import Callable

from resnet_jax.cache import use_compilation_cache
from resnet_jax.errors import ProcessLost, Stopped, UserError
from resnet_jax.malloc_tuning import keep_freed_memory

#: Exit statuses: a user's mistake; a run that saved its state and can be continued (EX_TEMPFAIL); Ctrl-C before there
#: was anything to save (128 + SIGINT, as in shells).
MISTAKE, STOPPED, INTERRUPTED = 2, 75, 130


def run_command(command: Callable[[], None], compilation_cache: bool = True) -> int:
    """Runs a command and returns its exit status.

    With `compilation_cache`, compiled programs are kept; see `cache.use_compilation_cache`.
    """
    if compilation_cache:
        use_compilation_cache()
    keep_freed_memory()
    # Orbax and TFDS log at length what they also raise.
    for library in ("absl", "asyncio"):
        logging.getLogger(library).setLevel(logging.CRITICAL)
    hide_late_threads()
    try:
        command()
    except UserError as error:
        _last_words(f"error: {error}")
        if "jax" in sys.modules:
            from resnet_jax.training.distributed import all_leave

            if not all_leave():
                os._exit(MISTAKE)
        return MISTAKE
    except Stopped as stopped:
        _last_words(f"stopped: {stopped}")
        if isinstance(stopped, ProcessLost):
            os._exit(STOPPED)  # a normal exit would wait for the lost process
        return STOPPED
    except KeyboardInterrupt:
        _last_words("stopped at once; the same command goes on from the newest checkpoint")
        return INTERRUPTED
    except RuntimeError as error:
        if "Unable to initialize backend" not in str(error):
            raise
        _last_words(f"error: {' '.join(str(error).split())}")  # by JAX_PLATFORMS
        return MISTAKE
    except BrokenPipeError:  # as of `summary ... | head`
        sys.stderr.close()
    return 0


def _last_words(text: str) -> None:
    """Prints why the command ends; where even that cannot be written, as to a full disk, the status says it."""
    with contextlib.suppress(OSError):
        print(text, file=sys.stderr, flush=True)


def hide_late_threads() -> None:
    """Hides that TensorStore's threads come too late to a write of Orbax that failed, which the command says itself."""
    shown = sys.unraisablehook
    if shown.__module__ == __name__:  # an earlier command of this process did it
        return

    def show(raised: "sys.UnraisableHookArgs") -> None:
        if not (isinstance(raised.exc_value, RuntimeError) and str(raised.exc_value) == "Event loop is closed"):
            shown(raised)

    sys.unraisablehook = show
