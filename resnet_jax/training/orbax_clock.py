"""Lets Orbax measure the time that a save may take by the monotonic clock.

By the wall clock, which it takes itself, a save would be given up as too slow when that is set forward meanwhile.
"""

import time
import types

from orbax.checkpoint._src.checkpointers import async_checkpointer
from orbax.checkpoint._src.futures import future, signaling_client

_MONOTONIC = types.SimpleNamespace(**vars(time) | {"time": time.monotonic})


def use_monotonic_clock() -> None:
    """Replaces the clock of Orbax's time limits, for this process; there is no option for it."""
    for module in (future, signaling_client, async_checkpointer):
        module.time = _MONOTONIC
