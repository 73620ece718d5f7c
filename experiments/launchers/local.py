"""Runs on this machine: each in a process of its own, one after another or several at a time."""

import collections
import time
from collections.abc import Mapping, Sequence

from experiments.board import Board
from experiments.launchers.process import Outcome, TrialProcess, request, write_failure
from experiments.plan import Trial, newest_checkpoint
from resnet_jax.training.stop import StopRequest

#: Seconds between two looks at the processes.
INTERVAL = 0.2


def launch(trials: Sequence[Trial], slots: Sequence[Mapping[str, str]], board: Board, stop: StopRequest) -> None:
    """Carries runs out; `board` is told what came of each.

    A run that fails does not end the others. One that was killed from outside (by a system short of memory, say) goes
    on from its checkpoint at the end of the queue, as long as it got further each time. After a signal nothing new is
    started, and what runs saves its state.

    Args:
      trials: in the order in which to start them.
      slots: the environment of each process that may run at the same time, see `devices.slots`.
      board: what to tell.
      stop: whether to stop.
    """
    queue = collections.deque(trials)
    free = list(slots)
    running: dict[TrialProcess, tuple[Trial, Mapping[str, str], int]] = {}
    try:
        while running or (queue and stop.signal is None):
            while queue and free and stop.signal is None:
                trial, slot = queue.popleft(), free.pop(0)
                board.start(trial)
                try:
                    process = TrialProcess(request(trial), slot)
                except OSError as error:
                    free.append(slot)
                    board.end(trial, Outcome("failed", f"cannot write to {trial.folder}: {error.strerror}", 0))
                else:
                    running[process] = trial, slot, newest_checkpoint(trial.folder)
            for process, (trial, slot, step) in list(running.items()):
                if stop.signal is not None:
                    process.stop()
                if (outcome := process.poll()) is not None:
                    del running[process]
                    free.append(slot)
                    if goes_on(trial, outcome, step, stop):
                        queue.append(trial)
                        board.again(trial, outcome)
                    else:
                        board.end(trial, outcome)
            board.tick()
            time.sleep(INTERVAL)
    finally:  # something is left only after a second Ctrl-C or a fault of our own
        for process in running:
            process.kill()


def goes_on(trial: Trial, outcome: Outcome, step: int, stop: StopRequest) -> bool:
    """Whether to start a run again that nobody here stopped: if it got past `step`, where it began this time.

    Else it is a failure, and its folder says so.
    """
    if outcome.kind not in ("killed", "stopped") or stop.signal is not None:
        return False
    if newest_checkpoint(trial.folder) > step:
        return True
    write_failure(trial.folder, outcome.text)
    return False
