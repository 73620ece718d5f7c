"""Progress displays that end a run at a step, as a kill or a signal does."""

import os
import signal

from resnet_jax.training.progress import ProgressDisplay


class Killed(Exception):
    """Ends a run without its knowing what for."""


class DiesAt(ProgressDisplay):
    """Ends a run as a kill does, once step `step` or a later one is known to be done."""

    def __init__(self, step: int) -> None:
        self.step = step

    def update(self, step, values, *, line):
        if step >= self.step:
            raise Killed


class Signals(ProgressDisplay):
    """Sends this process a signal, once, when a step is done."""

    def __init__(self, step: int, number: signal.Signals) -> None:
        self.step, self.number, self.sent = step, number, False

    def update(self, step, values, *, line):
        if step >= self.step and not line and not self.sent:
            self.sent = True
            os.kill(os.getpid(), self.number)
