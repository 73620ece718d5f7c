"""What a person sees while a run trains."""

import io

import pytest
from rich.console import Console

from resnet_jax.tasks.classification import Classification
from resnet_jax.training.progress import PlainProgress, RichProgress, TimeLeft, make_progress

SHOWN = Classification.shown
VALUES = {"loss": 1.25, "train_error": 42.5, "images_per_second": 1234.0}


def test_plain_lines_where_there_is_no_terminal():
    stream = io.StringIO()
    with make_progress(stream) as progress:
        assert isinstance(progress, PlainProgress)
        progress.start("net", 0, 10, SHOWN)
        progress.status("compiling")
        progress.update(5, VALUES, line=True)  # within ten seconds of the start: not shown
        progress.update(10, VALUES, line=False)
        progress.update(10, VALUES, line=True)
        progress.update(10, {"test_error": 50.0}, line=True)  # the last line has what both have, and comes once
    lines = stream.getvalue().splitlines()
    assert lines[:2] == ["net: from step 0 of 10", "net: compiling"]
    assert len(lines) == 3
    for part in ("step 10/10", "loss 1.250", "train error 42.50 %", "test error 50.00 %", "1,234 images/s", "0 s left"):
        assert part in lines[2]


def test_every_line_with_no_least_time():
    stream = io.StringIO()
    with PlainProgress(stream, seconds=0) as progress:
        progress.start("net", 4, 10, SHOWN)
        for step in (5, 6):
            progress.update(step, VALUES, line=False)
    assert [line.split()[2] for line in stream.getvalue().splitlines()[1:]] == ["5/10", "6/10"]


def test_the_time_left_is_of_the_last_minute():
    """A slow start (compiling, another run on the device) is forgotten."""
    left, now = TimeLeft(1000), 300.0
    assert left.update(0, 0.0) is None
    assert left.update(10, now) == pytest.approx(30 * 990)
    for step in range(20, 601, 10):
        now += 1.0 if step <= 580 else 50.0
        found = left.update(step, now)
    assert found == pytest.approx(400 * 100 / 20)  # the two of 50 s are the last minute
    for step in range(0, 601, 5):  # it went back; then 0.1 s for each of the 400 that are left
        now += 0.5
        found = left.update(step, now)
    assert found == pytest.approx(400 * 0.1)
    assert left.update(1000, now) == 0


def test_a_stream_that_nobody_reads_ends_no_run():
    class Gone(io.StringIO):
        def write(self, text):
            raise BrokenPipeError

    with PlainProgress(Gone(), seconds=0) as progress:
        progress.start("net", 4, 10, SHOWN)
        progress.update(5, VALUES, line=True)


def test_live_rows_of_two_runs():
    """One display for both: each run has its row once, with its last numbers, and 80 columns cut nothing."""
    console = Console(file=io.StringIO(), force_terminal=True, width=80)
    with RichProgress(console) as progress:
        progress.start("cifar_resnet110 seed 10", 0, 64000, SHOWN)
        progress.update(64000, VALUES | {"test_error": 50.0}, line=True)
        progress.start("cifar_preact_resnet164 seed 0", 3, 64000, SHOWN)
        speed = {"step_seconds": 0.1037, "data_wait": 1.25, "device_memory": 3.1}
        progress.update(31000, VALUES | speed, line=False)
    final = Console(file=io.StringIO(), width=80)
    final.print(progress._live.get_renderable())
    shown = final.file.getvalue()
    assert shown.count("cifar_resnet110 seed 10") == shown.count("cifar_preact_resnet164 seed 0") == 1
    for part in ("64000/64000", "31000/64000", "train/test error 42.5/50.0 %", "train/test error 42.5/- %"):
        assert part in shown
    assert "loss 1.250, 1,234 images/s, 104 ms a step, 1.2 % waiting for data, 3.1 GiB" in shown
    assert "…" not in shown
