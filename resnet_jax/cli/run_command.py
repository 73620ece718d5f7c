"""What every command of the project does around its work: quiet libraries, one line for a mistake, an exit status."""

import logging
import os
import sys
from collections.abc import Callable

from resnet_jax.cache import use_compilation_cache
from resnet_jax.errors import ProcessLost, Stopped, UserError
from resnet_jax.malloc_tuning import keep_freed_memory

#: Exit statuses: a mistake of the user's; a run that saved its state and can go on (EX_TEMPFAIL); a stop by Ctrl-C
#: before there was anything to save, as shells count it (128 + SIGINT).
MISTAKE, STOPPED, INTERRUPTED = 2, 75, 130


def run_command(command: Callable[[], None], compilation_cache: bool = True) -> int:
    """Runs a command and returns its exit status.

    With `compilation_cache`, it keeps what it compiles; see `cache.use_compilation_cache`.
    """
    if compilation_cache:
        use_compilation_cache()
    keep_freed_memory()
    # Orbax and TFDS report through these, at a length that drowns the progress display, what they then raise.
    for library in ("absl", "asyncio"):
        logging.getLogger(library).setLevel(logging.CRITICAL)
    try:
        command()
    except UserError as error:
        print(f"error: {error}", file=sys.stderr, flush=True)
        if "jax" in sys.modules:
            from resnet_jax.training.distributed import all_leave

            if not all_leave():
                os._exit(MISTAKE)
        return MISTAKE
    except Stopped as stopped:
        print(f"stopped: {stopped}", file=sys.stderr, flush=True)
        if isinstance(stopped, ProcessLost):
            os._exit(STOPPED)  # the usual way out would wait for the process that is gone
        return STOPPED
    except KeyboardInterrupt:
        print("stopped at once; the same command goes on from the newest checkpoint", file=sys.stderr)
        return INTERRUPTED
    except RuntimeError as error:
        if "Unable to initialize backend" not in str(error):
            raise
        print(f"error: {' '.join(str(error).split())}", file=sys.stderr)  # JAX_PLATFORMS names none that there is
        return MISTAKE
    except BrokenPipeError:  # the reader of `summary ... | head` has gone
        sys.stderr.close()
    return 0
