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
                    if len(pack) > 1:  # it may be the folder of one
                        queue.extendleft((trial,) for trial in reversed(pack))
                        continue
                    board.end(pack[0], Outcome("failed", f"cannot write to {pack[0].folder}: {error.strerror}", 0))
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

    What nobody here stopped goes on if the process got further than it had been; else it is a failure, and the runs'
    folders say so.

    Args:
      pack: its runs.
      outcome: of the process; a run that was finished by then is done all the same.
      steps: where they began this time.
      stop, board: see `launch`.

    Returns:
      The runs to start again.
    """
    unfinished = [trial for trial in pack if status(trial).state is not State.DONE]
    further = any(newest_checkpoint(trial.folder) > step for trial, step in zip(pack, steps, strict=True))
    goes_on = outcome.kind in ("killed", "stopped") and stop.signal is None
    for trial in pack:
        if trial not in unfinished:
            board.end(trial, Outcome("done", "", outcome.seconds))
        elif goes_on and further:
            board.again(trial, outcome)
        else:
            if goes_on:  # it would be killed again and again
                write_failure(trial.folder, outcome.text)
            board.end(trial, outcome)
    return tuple(unfinished) if goes_on and further else ()
