"""`python -m experiments NAME run`: what is missing is run, once; failures are told; signals are passed on."""

import io
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from rich.console import Console

from experiments.__main__ import main
from experiments.board import LiveBoard, PlainBoard, Runs
from experiments.commands.run import changes
from experiments.estimate import Rates
from experiments.launchers.devices import pinned, share, slots
from experiments.launchers.process import Outcome, TrialProcess, request
from experiments.plan import FAILURE, State, make_plan, status
from experiments.trial import locked
from resnet_jax.errors import UserError
from resnet_jax.training.record import RunRecord
from tests.experiments.tiny import table, tiny_row

ROOT = Path(__file__).parents[2]
DIVERGES = {"optimizer__learning_rate": 1e30, "schedule__warmup": "none"}


def test_runs_what_is_missing_once(tmp_path, listed, in_process, capsys):
    listed(table(tiny_row("plain", "digits:plain20"), tiny_row("residual"), tiny_row("same")))
    command = ["he2015.tiny", "run", f"--out={tmp_path}", "--seeds=2"]
    assert main([*command, "--rows=residual,same"]) == 0
    assert len(in_process.started) == 2
    assert main(command) == 0
    captured = capsys.readouterr()
    assert len(in_process.started) == 4 == len(set(in_process.started))
    assert "4 runs: 4 done; 2 shared" in captured.out
    assert re.search(r"plain seed 1: done in 0 s, train error .* %  test error .* %", captured.err)
    assert main(command) == 0
    assert len(in_process.started) == 4


def test_a_failure_ends_no_other_run_and_is_reported(tmp_path, listed, in_process, capsys):
    listed(table(tiny_row("bad", **DIVERGES), tiny_row("good")))
    assert main(["he2015.tiny", "run", f"--out={tmp_path}"]) == 1
    captured = capsys.readouterr()
    assert "2 runs: 1 done, 1 failed" in captured.out
    said = captured.err[captured.err.index("bad seed 0 failed:") :]
    assert "nan" in said and f"log: {tmp_path}" in said and said.rstrip().endswith("log.txt")
    # It is tried again, by name and state as any other.
    assert main(["he2015.tiny", "run", f"--out={tmp_path}"]) == 1
    assert len(in_process.started) == 3


def test_a_killed_run_goes_on_as_long_as_it_gets_further(tmp_path, listed, in_process, capsys):
    listed(table(tiny_row("one"), tiny_row("other", "digits:plain20")))
    in_process.kills += [3, 0, 5]  # the first run at step 3, not the second, the first at step 5
    assert main(["he2015.tiny", "run", f"--out={tmp_path}"]) == 0
    one, other = (trial.folder for trial in make_plan([table(tiny_row("one"), tiny_row("other", "digits:plain20"))],
                                                      tmp_path.absolute()).trials)  # fmt: skip
    assert in_process.started == [one, other, one, one]
    assert "one seed 0: goes on from step 4" in capsys.readouterr().err


def test_a_run_that_is_always_killed_at_once_is_a_failure(tmp_path, listed, in_process, capsys):
    listed(table(tiny_row("one")))
    in_process.kills += [3, 3, 3, 3]
    assert main(["he2015.tiny", "run", f"--out={tmp_path}"]) == 1
    assert len(in_process.started) == 2
    assert "one seed 0 failed:\nkilled by SIGKILL" in capsys.readouterr().err
    assert main(["he2015.tiny", "run", f"--out={tmp_path}"]) == 1
    in_process.kills.clear()
    assert main(["he2015.tiny", "run", f"--out={tmp_path}"]) == 0


def test_dry_run_runs_nothing(tmp_path, listed, in_process, capsys, monkeypatch):
    listed(table(tiny_row("plain", "digits:plain20"), tiny_row("residual"), tiny_row("same")))
    monkeypatch.setenv("COLUMNS", "120")
    out = tmp_path / "runs"
    assert main(["he2015.tiny", "run", f"--out={out}", "--launcher=ray", "--dry_run"]) == 0
    printed = capsys.readouterr().out
    assert "2 runs: 2 missing; 1 shared" in printed and "?" in printed and "more than 0 s" in printed
    assert not out.exists() and not in_process.started
    assert main(["he2015.tiny", "run", f"--out={out}", "--rows=plain"]) == 0
    capsys.readouterr()
    assert main(["he2015.tiny", "run", f"--out={out}", "--launcher=ray", "--dry_run"]) == 0
    assert re.search(r"Plain +done +-", capsys.readouterr().out)
    assert len(in_process.started) == 1


def test_dry_run_times_some_steps_where_there_is_no_record(tmp_path, listed, capsys, monkeypatch):
    listed(table(tiny_row("one", steps=60_000)))
    monkeypatch.setenv("COLUMNS", "120")
    monkeypatch.setenv("XLA_FLAGS", "")
    assert main(["he2015.tiny", "run", f"--out={tmp_path}", "--dry_run"]) == 0
    printed = capsys.readouterr().out
    assert re.search(r"One +missing +\d+ (s|min) +6 steps, timed", printed)
    assert re.search(r"total: about \d+ (s|min) of training, one run after another", printed)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--rows=two"], "unknown row of he2015.tiny 'two'"),
        (["--seeds=0"], "argument --seeds: '0' must be a whole number of 1 or more"),
        (["--steps_scale=-1"], "argument --steps_scale: '-1' must be a number above 0"),
        (["--steps_scale=nan"], "argument --steps_scale: 'nan' must be a number above 0"),
        (["--launcher=slurm"], "argument --launcher: invalid choice: 'slurm'"),
        (["--set", "data.dir=x"], "unknown config field 'data.dir'; did you mean data.data_dir"),
        (["--set", "steps"], "--set steps: must be FIELD=VALUE"),
        (["--set", "steps=0"], "row one: config.steps=0 must be 1 or more"),
        (["--set", "steps=few"], "row one: "),
        (["--set", "seed=3"], "that is what --seeds is for"),
        (["--set", "data.data_dir=/no/such"], "data.data_dir=/no/such is not a folder"),
        (["--step=3"], "unrecognized arguments: --step=3"),
        (["--launcher=ray", "--per_device"], "--per_device is for --launcher=local"),
    ],
)
def test_mistakes_end_in_one_line(tmp_path, listed, capsys, arguments, message):
    listed(table(tiny_row("one")))
    assert main(["he2015.tiny", "run", f"--out={tmp_path}", *arguments]) == 2
    out, err = capsys.readouterr()
    assert out == "" and err.count("\n") == 1 and err.startswith("error: ") and message in err
    assert not list(tmp_path.iterdir())


def test_an_unknown_table(capsys):
    assert main(["he2015.table99", "run"]) == 2
    assert "unknown table or figure 'he2015.table99'" in capsys.readouterr().err


def test_a_folder_that_cannot_be_written(tmp_path, listed, capsys):
    listed(table(tiny_row("one")))
    (tmp_path / "file").touch()
    assert main(["he2015.tiny", "run", f"--out={tmp_path / 'file'}"]) == 2
    assert capsys.readouterr().err.startswith("error: cannot write to --out=")
    (trial,) = make_plan([table(tiny_row("one"))], tmp_path).trials
    trial.folder.touch()  # where the run's own folder should be
    assert main(["he2015.tiny", "run", f"--out={tmp_path}"]) == 1
    assert "one seed 0 failed:\ncannot write to" in capsys.readouterr().err


def test_values_of_set():
    assert changes([["data.data_dir=/a b", "batch_size=64"], ["model.widths=(4,8)", "data.flip=False"]]) == {
        "data.data_dir": "/a b", "batch_size": 64, "model.widths": (4, 8), "data.flip": False
    }  # fmt: skip


# ---- processes


def wait_for(condition, seconds=90):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.1)


def lines(folder):
    return RunRecord(folder).lines() if folder.exists() else []


def launcher(tmp_path, row, *arguments):
    """The command in a process of its own, on a table of one row."""
    script = tmp_path / "command.py"
    script.write_text(
        "import sys\n"
        "from experiments import registry\n"
        "from experiments.__main__ import main\n"
        "from tests.experiments.tiny import table, tiny_row\n"
        f"registry.load = lambda name: table(tiny_row({row.name!r}, {row.config!r}, **{dict(row.changes)!r}))\n"
        "sys.exit(main(sys.argv[1:]))\n"
    )
    command = [sys.executable, str(script), "he2015.tiny", "run", f"--out={tmp_path / 'runs'}", *arguments]
    env = {**os.environ, "PYTHONPATH": str(ROOT), "XLA_FLAGS": ""}
    return subprocess.Popen(command, env=env, cwd=ROOT, stderr=subprocess.PIPE, text=True)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_a_launcher_that_ends_takes_its_run_along(tmp_path, number):
    """By SIGTERM it waits until the run has saved its state; when it is killed, the run does so by itself."""
    row = tiny_row("long", steps=10**6, checkpoint_every=10**6, eval_every=10**6, log_every=100)
    (trial,) = make_plan([table(row)], tmp_path / "runs").trials
    process = launcher(tmp_path, row)
    wait_for(lambda: len(lines(trial.folder)) > 2)
    assert status(trial).state is State.MISSING  # nothing is saved unless it is told to
    process.send_signal(number)
    _, err = process.communicate(timeout=60)
    assert process.returncode == (75 if number == signal.SIGTERM else -number)
    if number == signal.SIGTERM:
        assert "stopped: SIGTERM; 0 of 1 runs are done" in err
        assert status(trial).state is State.PART
    wait_for(lambda: status(trial).state is State.PART)
    with locked(trial.folder):  # its process is gone, or about to be: the lock is free
        assert status(trial).step >= lines(trial.folder)[-1]["step"]
    assert not (trial.folder / FAILURE).exists()


def ended(process):
    found = None

    def over():
        nonlocal found
        found = process.poll()
        return found is not None

    wait_for(over)
    return found


def test_a_process_that_fails_leaves_its_last_lines(tmp_path):
    (trial,) = make_plan([table(tiny_row("one"))], tmp_path, changes={"data.name": "mnist"}).trials
    outcome = ended(TrialProcess(request(trial), {}))
    assert outcome.kind == "failed" and outcome.text.startswith("exit status 2\nerror: unknown dataset 'mnist'")
    assert (trial.folder / FAILURE).read_text().strip() == outcome.text
    log = (trial.folder / "log.txt").read_text()
    assert log.startswith("--- ") and "unknown dataset" in log
    assert status(trial).state is State.FAILED


def test_a_process_that_is_killed(tmp_path):
    (trial,) = make_plan([table(tiny_row("one"))], tmp_path).trials
    process = TrialProcess(request(trial), {})
    os.kill(process.pid, signal.SIGKILL)
    assert ended(process).text == "killed by SIGKILL"
    process = TrialProcess(request(trial), {})
    process.stop()
    assert ended(process).kind == "stopped"


def test_two_launchers_do_not_work_on_one_run(tmp_path):
    """The second waits for the first, and then finds the result."""
    (trial,) = make_plan([table(tiny_row("one"))], tmp_path).trials
    with locked(trial.folder):
        process = TrialProcess(request(trial), {"XLA_FLAGS": ""})
        wait_for(lambda: "another process works on this run" in (trial.folder / "log.txt").read_text())
        assert process.poll() is None and not lines(trial.folder)
    assert ended(process).kind == "done"
    assert status(trial).state is State.DONE


# ---- devices


def test_a_run_on_each_device(monkeypatch):
    assert slots(per_device=False, at_once=1) == [{}]
    assert pinned("gpu", 2, {}) == [{"CUDA_VISIBLE_DEVICES": "0"}, {"CUDA_VISIBLE_DEVICES": "1"}]
    assert pinned("gpu", 2, {"CUDA_VISIBLE_DEVICES": "4,7"})[1] == {"CUDA_VISIBLE_DEVICES": "7"}
    tpu = pinned("tpu", 4, {})
    assert [slot["TPU_VISIBLE_DEVICES"] for slot in tpu] == ["0", "1", "2", "3"]
    assert len({slot["TPU_MESH_CONTROLLER_PORT"] for slot in tpu}) == 4
    monkeypatch.setenv("XLA_FLAGS", "--xla_cpu_multi_thread_eigen=true --xla_force_host_platform_device_count=2")
    assert (
        slots(per_device=True, at_once=2, environment=os.environ)
        == [{"XLA_FLAGS": "--xla_cpu_multi_thread_eigen=true"}] * 4
    )


def test_runs_that_share_a_device(monkeypatch):
    assert share("gpu", 3, {}) == {"XLA_PYTHON_CLIENT_MEM_FRACTION": "0.30"}
    assert share("gpu", 3, {"XLA_PYTHON_CLIENT_MEM_FRACTION": ".1"}) == share("cpu", 3, {}) == share("gpu", 1, {}) == {}
    found = {"hardware": {"platform": "tpu"}, "chips": 4}
    monkeypatch.setattr("experiments.launchers.devices.probe", lambda: found)
    assert len(slots(per_device=True, at_once=1)) == 4
    with pytest.raises(UserError, match="one process only"):
        slots(per_device=True, at_once=2)


# ---- the boards


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
