"""What a person sees while runs go on: in a terminal and in a log."""

import io
import re

from rich.console import Console

from experiments.estimate import Rates
from experiments.launchers.dashboard import LiveBoard, PlainBoard, Runs
from experiments.launchers.process import Outcome
from experiments.plan import make_plan, status
from tests.experiments.tiny import table, tiny_row


def test_boards(tmp_path):
    plan = make_plan([table(tiny_row("plain", "digits:plain20"), tiny_row("residual"), seeds=2)], tmp_path)
    statuses = {trial.folder: status(trial) for trial in plan.trials}
    one, two, three, _ = plan.trials
    stream = io.StringIO()
    console = Console(file=stream, width=120, force_terminal=False)
    live = LiveBoard(Runs(plan, statuses, Rates(), 2), console)
    plain = PlainBoard(Runs(plan, statuses, Rates(), 2), stream, seconds=0)
    one.folder.mkdir()
    (one.folder / "log.txt").write_text("cifar_plain20 seed 0: compiling\n")
    for board in (live, plain):
        board.start(one)
        board.start(two)
        board.tick()
    assert "compiling" in render(live, console) and "time left: unknown yet" in render(live, console)

    metrics = one.folder / "metrics.jsonl"
    metrics.write_text('{"step": 2, "train_error": 80.5, "images_per_second": 32}\n{"step": 4, "trai')
    for board in (live, plain):
        board.runs.look(one)
        board.end(two, Outcome("failed", "exit status 1\nTraceback\nMemoryError: no memory", 3))
        board.again(three, Outcome("killed", "killed by SIGKILL", 3))
    shown = render(live, console)
    assert re.search(r"plain seed 0 .* 2/6 +train error 80.50 %  32 images/s", shown)
    assert "residual seed 0 failed: MemoryError: no memory" in shown
    # 4 and 6 steps of 16 images at 32 a second, two at a time; the other net's speed is not known.
    assert "0 of 4 runs done; time left: more than 3 s (1 runs of unknown speed)" in shown
    text = stream.getvalue()
    assert "plain seed 0: begins" in text and "residual seed 0: failed in 3 s, exit status 1" in text
    assert "plain seed 1: killed by SIGKILL; it will go on from its checkpoint" in text
    metrics.write_text('{"step": 6, "train_error": 70.0, "test_error": 71.0}\n')
    live.end(one, Outcome("done", "", 9))
    assert re.search(r"Plain +1 +· +1 +·", render(live, console))


def render(board, console):
    with console.capture() as captured:
        console.print(board.render())
    return captured.get()
