"""Runs in processes of their own: signals are passed on, crashes are told, and each gets its device."""

import errno
import fcntl
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from experiments.launchers.devices import pinned, share, slots
from experiments.launchers.process import TrialProcess, request
from experiments.plan import FAILURE, State, make_plan, status
from experiments.train_run import locked
from resnet_jax.errors import UserError
from resnet_jax.kernels import build
from resnet_jax.training.run_record import RunRecord
from tests.experiments.tiny import table, tiny_row

ROOT = Path(__file__).parents[2]


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
        "registry.NAMES = ('he2015.tiny',)\n"
        f"registry.load = lambda name: table(tiny_row({row.name!r}, {row.config!r}, **{dict(row.changes)!r}))\n"
        "sys.exit(main(sys.argv[1:]))\n"
    )
    command = [sys.executable, str(script), "he2015.tiny", "run", f"--out={tmp_path / 'runs'}", *arguments]
    env = {**os.environ, "PYTHONPATH": str(ROOT), "XLA_FLAGS": ""}
    env.pop(build.SWITCH, None)
    return subprocess.Popen(command, env=env, cwd=ROOT, stderr=subprocess.PIPE, text=True)


@pytest.mark.parametrize("number", [signal.SIGTERM, pytest.param(signal.SIGKILL, marks=pytest.mark.long)])
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


@pytest.mark.long
def test_two_launchers_do_not_work_on_one_run(tmp_path):
    """The second waits for the first, and then finds the result."""
    (trial,) = make_plan([table(tiny_row("one"))], tmp_path).trials
    with locked(trial.folder):
        process = TrialProcess(request(trial), {"XLA_FLAGS": ""})
        wait_for(lambda: "another process works on this run" in (trial.folder / "log.txt").read_text())
        assert process.poll() is None and not lines(trial.folder)
    assert ended(process).kind == "done"
    assert status(trial).state is State.DONE


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP])
def test_a_file_system_without_locks(tmp_path, monkeypatch, number):
    def refuse(file, operation):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "flock", refuse)
    with locked(tmp_path / "run"):
        pass
    with pytest.raises(OSError, match="its own"), locked(tmp_path / "run"):
        raise OSError("its own")


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
