"""Runs commands: quiet libraries, one line for a user's mistake, an exit status."""

import logging
import os
import sys
from collections.abc import Callable

from resnet_jax.cache import use_compilation_cache
from resnet_jax.errors import ProcessLost, Stopped, UserError, printable
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
    try:
        command()
    except UserError as error:
        print(f"error: {printable(str(error))}", file=sys.stderr, flush=True)
        if "jax" in sys.modules:
            from resnet_jax.training.distributed import all_leave

            if not all_leave():
                os._exit(MISTAKE)
        return MISTAKE
    except Stopped as stopped:
        print(f"stopped: {printable(str(stopped))}", file=sys.stderr, flush=True)
        if isinstance(stopped, ProcessLost):
            os._exit(STOPPED)  # a normal exit would wait for the lost process
        return STOPPED
    except KeyboardInterrupt:
        print("stopped at once; the same command goes on from the newest checkpoint", file=sys.stderr)
        return INTERRUPTED
    except RuntimeError as error:
        if "Unable to initialize backend" not in str(error):
            raise
        print(f"error: {' '.join(str(error).split())}", file=sys.stderr)  # by JAX_PLATFORMS
        return MISTAKE
    except BrokenPipeError:  # as of `summary ... | head`
        sys.stderr.close()
    return 0
