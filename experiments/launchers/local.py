"""Runs on this machine in processes of their own, one after another or several at a time.

A process takes a pack: one run, or several that differ in their seed alone and go in one program.
"""

import collections
import time
from collections.abc import Mapping, Sequence

from experiments.board import Board
from experiments.launchers.process import Outcome, TrialProcess, request, write_failure
from experiments.plan import State, Trial, newest_checkpoint, status
from resnet_jax.training.stop import StopRequest

#: Seconds between two looks at the processes.
INTERVAL = 0.2


Pack = tuple[Trial, ...]


def launch(packs: Sequence[Pack], slots: Sequence[Mapping[str, str]], board: Board, stop: StopRequest) -> None:
    """Carries runs out; `board` is told what came of each.

    A run that fails does not end the others. One that was killed from outside (by a system short of memory, say) goes
    on from its checkpoint at the end of the queue, as long as it got further each time. After a signal nothing new is
    started, and what runs saves its state.

    Args:
      packs: see `plan.packs`, in the order in which to start them.
      slots: the environment of each process that may run at the same time, see `devices.slots`.
      board: what to tell.
      stop: whether to stop.
    """
    queue = collections.deque(packs)
    free = list(slots)
    running: dict[TrialProcess, tuple[Pack, Mapping[str, str], list[int]]] = {}
    try:
        while running or (queue and stop.signal is None):
            while queue and free and stop.signal is None:
                pack, slot = queue.popleft(), free.pop(0)
                for trial in pack:
                    board.start(trial)
                try:
                    process = TrialProcess(request(*pack), slot)
                except OSError as error:
                    free.append(slot)
                    for trial in pack:
                        board.end(trial, Outcome("failed", f"cannot write to {error.filename}: {error.strerror}", 0))
                else:
                    running[process] = pack, slot, steps_of(pack)
            for process, (pack, slot, steps) in list(running.items()):
                if stop.signal is not None:
                    process.stop()
                if (outcome := process.poll()) is not None:
                    del running[process]
                    free.append(slot)
                    if again := judge(pack, outcome, steps, stop, board):
                        queue.append(again)
            board.tick()
            time.sleep(INTERVAL)
    finally:  # something is left only after a second Ctrl-C or a fault of our own
        for process in running:
            process.kill()


def steps_of(pack: Pack) -> list[int]:
    """Where each of the runs would go on."""
    return [newest_checkpoint(trial.folder) for trial in pack]


def judge(pack: Pack, outcome: Outcome, steps: Sequence[int], stop: StopRequest, board: Board) -> Pack:
    """Tells the board what came of each run of a process that has ended.

    Args:
      pack: its runs.
      outcome: of the process; a run that was finished by then is done all the same.
      steps: where they began this time.
      stop, board: see `launch`.

    Returns:
      The runs to start again.
    """
    again = []
    for trial, step in zip(pack, steps, strict=True):
        mine = outcome
        if len(pack) > 1 and outcome.kind != "done" and status(trial).state is State.DONE:
            mine = Outcome("done", "", outcome.seconds)
        if goes_on(trial, mine, step, stop):
            board.again(trial, mine)
            again.append(trial)
        else:
            board.end(trial, mine)
    return tuple(again)


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
