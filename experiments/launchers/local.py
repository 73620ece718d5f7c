"""Trains runs on this machine in processes of their own, one after another or several at a time."""

import collections
import time
from collections.abc import Mapping, Sequence

from experiments.launchers.dashboard import Board
from experiments.launchers.process import Outcome, TrialProcess, request, write_failure
from experiments.plan import State, Trial, newest_checkpoint, status
from resnet_jax.training.stopping import StopRequest

#: Seconds between two looks at the processes.
INTERVAL = 0.2


def launch(trials: Sequence[Trial], slots: Sequence[Mapping[str, str]], board: Board, stop: StopRequest) -> None:
    """Carries runs out and tells `board` how each ended.

    A run that fails does not end the others. One that is killed from outside (by a system short of memory, say) goes
    to the end of the queue and continues from its checkpoint, as long as it gets further each time. After a signal
    nothing new is started, and what runs saves its state.

    Args:
      trials: in the order in which to start them.
      slots: the environment of each process that may run at the same time, see `devices.slots`.
      board: shows the progress.
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
                    if goes_on(trial, outcome, step, stop, board):
                        queue.append(trial)
            board.tick()
            time.sleep(INTERVAL)
    finally:  # something is left only after a second Ctrl-C or a bug
        for process in running:
            process.kill()


def goes_on(trial: Trial, outcome: Outcome, step: int, stop: StopRequest, board: Board) -> bool:
    """Tells the board how a run's process ended, and returns whether the run is to be started again.

    It is if it was ended from outside and had got further; one that had not counts as failed, and its folder says so.

    Args:
      trial: the run.
      outcome: of its process.
      step: of the newest checkpoint when the process began.
      stop, board: see `launch`.
    """
    interrupted = outcome.kind in ("killed", "stopped") and stop.signal is None
    if status(trial).state is State.DONE:
        board.end(trial, Outcome("done", "", outcome.seconds))
    elif interrupted and newest_checkpoint(trial.folder) > step:
        board.again(trial, outcome)
        return True
    else:
        if interrupted:  # it would be killed again and again
            write_failure(trial.folder, outcome.text)
        board.end(trial, outcome)
    return False
