"""What a person sees while runs go on: in a terminal and in a log."""

import io
import re

import pytest
from rich.console import Console

from experiments.estimate import Rates
from experiments.launchers.dashboard import Board, Runs
from experiments.launchers.process import Outcome
from experiments.plan import make_plan, status
from tests.experiments.tiny import table, tiny_row


def test_boards(tmp_path):
    plan = make_plan([table(tiny_row("plain", "digits:plain20"), tiny_row("residual"), seeds=2)], tmp_path)
    statuses = {trial.folder: status(trial) for trial in plan.trials}
    one, two, three, _ = plan.trials
    stream = io.StringIO()
    console = Console(file=stream, width=120, force_terminal=False)
    board = Board(Runs(plan, statuses, Rates(), 2), console, seconds=0)
    one.folder.mkdir()
    (one.folder / "log.txt").write_text("cifar_plain20 seed 0: compiling\n")
    board.start(one)
    board.start(two)
    board.tick()
    assert "compiling" in render(board, console) and "0 of 4 runs done, unknown yet left" in render(board, console)
    assert "plain seed 0: step 0 of 6, no step is recorded yet" in stream.getvalue()

    metrics = one.folder / "metrics.jsonl"
    metrics.write_text('{"step": 2, "train_error": 80.5, "images_per_second": 32}\n{"step": 4, "trai')
    board.runs.look(one)
    board.end(two, Outcome("failed", "exit status 1\nTraceback\nMemoryError: no memory", 3))
    board.again(three, Outcome("killed", "killed by SIGKILL", 3))
    shown = render(board, console)
    assert re.search(r"plain seed 0 .* 2/6 +train error 80.50 %  32 images/s", shown)
    assert "residual seed 0 failed: MemoryError: no memory" in shown
    # 4 and 6 steps of 16 images at 32 a second, two at a time; the other net's speed is not known.
    assert "0 of 4 runs done, more than 3 s (1 run of unknown speed) left" in shown
    text = stream.getvalue()
    assert "plain seed 0: begins" in text and "residual seed 0: failed in 3 s, exit status 1" in text
    assert "plain seed 1: killed by SIGKILL; it will go on from its checkpoint" in text
    metrics.write_text('{"step": 6, "train_error": 70.0, "test_error": 71.0}\n')
    board.end(one, Outcome("done", "", 9))
    assert re.search(r"Plain +1 +· +1 +·", render(board, console))


def test_failures_of_runs_that_are_called_alike(tmp_path):
    plan = make_plan([table(tiny_row("one")), table(tiny_row("one", batch_size=32), name="he2015.other")], tmp_path)
    runs = Runs(plan, plan.statuses(), Rates(), 1)
    for trial, text in zip(plan.trials, ("no memory", "no data"), strict=True):
        runs.end(trial, Outcome("failed", text, 1))
    assert [(name, text.split("\n")[0]) for name, text in runs.failures()] == [
        ("one seed 0", "no memory"), ("one seed 0", "no data")
    ]  # fmt: skip


def test_a_terminal_has_a_table_and_the_lines_above_it(tmp_path):
    plan = make_plan([table(tiny_row("plain", "digits:plain20"))], tmp_path)
    (trial,) = plan.trials
    stream = io.StringIO()
    console = Console(file=stream, width=120, force_terminal=True)
    with Board(Runs(plan, plan.statuses(), Rates(), 1), console) as board:
        board.start(trial)
        board.end(trial, Outcome("done", "", 9))
    text = stream.getvalue()
    assert "plain seed 0: begins" in text and "plain seed 0: done in 9 s" in text
    assert text.rindex("1 of 1 run done") > text.rindex("done in 9 s")


@pytest.mark.parametrize(
    ("width", "expected"),
    [(140, "train error 12.50 %  test AP50 80.00 %"), (76, "train/test error/AP50 12.50/80.00 %"), (48, "80.00 %")],
)
def test_metrics_are_those_of_the_task(tmp_path, width, expected):
    """A detector has no test error."""
    plan = make_plan([table(tiny_row("cells", "digits:plain20"))], tmp_path)
    (trial,) = plan.trials
    trial.config.task = "detection"
    trial.folder.mkdir()
    (trial.folder / "metrics.jsonl").write_text('{"step": 2, "train_error": 12.5, "test_ap50": 80.0}\n')
    console = Console(file=io.StringIO(), width=width, force_terminal=False)
    board = Board(Runs(plan, plan.statuses(), Rates(), 1), console)
    board.start(trial)
    board.runs.look(trial)
    assert re.search(rf"2/6 +{expected} *\n", render(board, console))


def render(board, console):
    with console.capture() as captured:
        console.print(board.render())
    return captured.get()
