"""What every command of the project does around its work: quiet libraries, one line for a mistake, an exit status."""

import logging
import sys
from collections.abc import Callable

from resnet_jax.errors import UserError

#: Exit statuses: a mistake of the user's, and a stop by Ctrl-C as shells count it (128 + SIGINT).
MISTAKE, INTERRUPTED = 2, 130


def run(command: Callable[[], None]) -> int:
    """Runs a command and returns its exit status."""
    # Orbax and TFDS report through absl at a length that drowns the progress display.
    logging.getLogger("absl").setLevel(logging.ERROR)
    try:
        command()
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return MISTAKE
    except KeyboardInterrupt:
        print("stopped; the same command goes on from the newest checkpoint", file=sys.stderr)
        return INTERRUPTED
    except BrokenPipeError:  # the reader of `summary ... | head` has gone
        sys.stderr.close()
    return 0
