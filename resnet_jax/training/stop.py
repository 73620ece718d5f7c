"""SIGTERM and SIGINT as a request: finish the step, save, and say how to go on."""

import os
import signal
import threading
from types import FrameType
from typing import Any

import jax
from jax.experimental import multihost_utils

SIGNALS = (signal.SIGTERM, signal.SIGINT)


class StopRequest:
    """Inside a `with`, the first SIGTERM or SIGINT only asks to stop; a second SIGINT stops at once, as ever.

    Schedulers send SIGTERM some seconds before SIGKILL, a person presses Ctrl-C. Signals can be caught in the main
    thread alone: in any other, nothing is changed.

    Of several processes, whichever is signalled, all stop after the same step: JAX's runtime catches SIGTERM itself
    and tells the others.

    Attributes:
      signal: the signal that came, if one did.
    """

    def __init__(self) -> None:
        self.signal: signal.Signals | None = None
        self._previous: dict[signal.Signals, Any] = {}
        self._asked, self._answer = 0, False  # the newest dispatch, and what was said of it
        # Not jax.process_count(): that would take hold of the devices, also for a launcher of runs.
        self._several = jax.distributed.is_initialized()

    def __enter__(self) -> "StopRequest":
        if threading.current_thread() is threading.main_thread():
            caught = (signal.SIGINT,) if self._several else SIGNALS
            self._previous = {number: signal.signal(number, self._note) for number in caught}
        return self

    def __exit__(self, *exception: object) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def reached(self, dispatch: int) -> bool:
        """Whether to stop now; in several processes true in all of them alike.

        Args:
          dispatch: number of the dispatch, from 1; runs in one program that ask of the same one are told the same, so
            that all stop after the same step.
        """
        if dispatch != self._asked:
            self._asked, self._answer = dispatch, self._decide(dispatch)
        return self._answer

    def _decide(self, dispatch: int) -> bool:
        if self._several and multihost_utils.reached_preemption_sync_point(dispatch):
            self.signal = self.signal or signal.SIGTERM
            return True
        return not self._several and self.signal is not None

    def _note(self, number: int, frame: FrameType | None) -> None:
        if self.signal is not None and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.signal = signal.Signals(number)
        if self._several:
            os.kill(os.getpid(), signal.SIGTERM)
