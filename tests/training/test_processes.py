"""Several processes: the run of one, stopped together, and none left behind when one dies."""

import json
import shutil
import signal
import subprocess
import sys
import time

import jax
import numpy as np
import pytest

from resnet_jax.errors import UserError
from resnet_jax.training import distributed
from resnet_jax.training.checkpoint import Checkpoints
from resnet_jax.training.distributed import make_mesh, replicated
from resnet_jax.training.run_record import RunRecord
from resnet_jax.training.trainer import make_trainer
from tests.training.kills import lines
from tests.training.processes import DEVICES, HEARTBEAT, ROOT, start, wait_for_step


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("processes")


@pytest.fixture(scope="module")
def whole(folder):
    """Finished runs by their number of processes, each trained when first asked for."""
    made = {}

    def run(processes):
        if processes not in made:
            workdir = folder / f"whole{processes}"
            ended = start("train", workdir, processes, folder / "cache").wait()
            assert [e.status for e in ended] == [0] * processes, ended[0].output
            made[processes] = workdir, ended
        return made[processes]

    return run


def final_state(workdir):
    trainer = make_trainer(RunRecord(workdir).config(), jax.devices()[:1])
    checkpoints = Checkpoints(workdir / "checkpoints", 2, read_only=True)
    restored = checkpoints.restore(trainer.init(), replicated(make_mesh(jax.devices()[:1])))
    checkpoints.close()
    return jax.tree.map(np.asarray, restored.state)


@pytest.mark.parametrize("processes", [2, pytest.param(4, marks=pytest.mark.long)])
def test_equal_to_one_process(whole, processes):
    """Eight devices in each case: lines and final parameters within float32 rounding; one process alone writes."""
    one, _ = whole(1)
    several, ended = whole(processes)
    assert [x["step"] for x in lines(several)] == [x["step"] for x in lines(one)]
    for a, b in zip(lines(several), lines(one), strict=True):
        assert a.keys() == b.keys()
        np.testing.assert_allclose(list(a.values()), list(b.values()), rtol=5e-4)
    a, b = final_state(several), final_state(one)
    difference = jax.tree.map(lambda x, y: float(np.max(np.abs(x - y))) if x.dtype == np.float32 else 0.0, a, b)
    assert max(jax.tree.leaves(difference)) < 2e-4
    result = RunRecord(several).result()
    assert (result.hardware["hosts"], result.hardware["devices"]) == (processes, DEVICES)
    assert "test error" in ended[0].output
    assert not any("test error" in e.output for e in ended[1:]), "one process alone shows progress"


def test_evaluate_in_two_processes(whole, folder):
    workdir, _ = whole(2)
    ended = start("evaluate", workdir, 2, folder / "cache").wait()
    assert [e.status for e in ended] == [0, 0], ended[0].output
    found = json.loads(ended[0].output.splitlines()[-1])
    assert found["test_error"] == pytest.approx(RunRecord(workdir).result().metrics["test_error"], abs=1e-9)
    assert not [line for line in ended[1].output.splitlines() if line.startswith("{")]


@pytest.mark.long
def test_found_from_slurms_environment(whole, folder):
    ended = start("train", folder / "srun", 2, folder / "cache", srun=True).wait()
    assert [e.status for e in ended] == [0, 0], ended[0].output
    assert lines(folder / "srun") == lines(whole(2)[0])


def stop_one(workdir, cache, who, number):
    job = start("train", workdir, 2, cache)
    wait_for_step(job, workdir, 4)
    job.processes[who].send_signal(number)
    ended = job.wait(180)
    assert [e.status for e in ended] == [75, 75], ended
    sentences = [line.partition("after step")[2] for e in ended for line in e.output.splitlines() if "stopped:" in line]
    assert len(sentences) == 2 and sentences[0] == sentences[1] != ""


def test_sigterm_to_one_stops_all_after_the_same_step_and_the_rerun_goes_on(whole, folder):
    workdir = folder / "terminated"
    stop_one(workdir, folder / "cache", 1, signal.SIGTERM)
    ended = start("train", workdir, 2, folder / "cache").wait()
    assert [e.status for e in ended] == [0, 0], ended[0].output
    assert lines(workdir) == lines(whole(2)[0])


@pytest.mark.long
def test_ctrl_c_in_one_stops_all(folder):
    stop_one(folder / "interrupted", folder / "cache", 0, signal.SIGINT)


@pytest.mark.long
@pytest.mark.parametrize("victim", [0, 1])
def test_a_killed_process_brings_the_others_down_and_the_rerun_goes_on(whole, folder, victim):
    """Bitwise: the rerun ends as the run that was left alone, with every line once."""
    workdir = folder / f"killed{victim}"
    job = start("train", workdir, 2, folder / "cache", heartbeat=HEARTBEAT)
    wait_for_step(job, workdir, 14)  # two checkpoints are whole by then
    job.processes[victim].send_signal(signal.SIGKILL)
    killed = time.monotonic()
    ended = job.wait(180)
    assert time.monotonic() - killed < HEARTBEAT + 50
    other = ended[1 - victim]
    assert other.status in (75, -signal.SIGABRT), other
    assert "another process is gone" in other.output or "another task died" in other.output
    assert not (workdir / "result.json").exists()
    if victim == 1:  # as if the kill had hit the storage, too
        newest = max((p for p in (workdir / "checkpoints").iterdir() if p.name.isdigit()), key=lambda p: int(p.name))
        shutil.rmtree(newest / "state")
    ended = start("train", workdir, 2, folder / "cache").wait()
    assert [e.status for e in ended] == [0, 0], ended[0].output
    if victim == 1:
        assert f"checkpoint {newest.name} cannot be read" in ended[0].output
    assert lines(workdir) == lines(whole(2)[0])


def test_a_mistake_is_told_by_all(folder):
    ended = start("train", folder / "mistake", 2, folder / "cache", batch_size=12).wait()
    assert [e.status for e in ended] == [2, 2]
    assert all("error: config.batch_size=12 is not divisible by the 8 devices" in e.output for e in ended)


def test_what_process_0_alone_meets_is_told_by_all(folder):
    """It alone writes the record."""
    (folder / "taken").write_text("")
    ended = start("train", folder / "taken", 2, folder / "cache", heartbeat=HEARTBEAT).wait()
    assert [e.status for e in ended] == [2, 2]
    assert all("cannot" in e.output and "workdir" in e.output for e in ended)


@pytest.mark.long
def test_rollback_and_a_trace_in_two_processes(folder):
    """At a factor of 1 nearly any loss is a jump: both go back together until they give up together."""
    fields = {"steps": 60, "loss_jump": 1.0, "on_nan": "rollback", "profile_steps": "(3,9)"}
    ended = start("train", folder / "rollback", 2, folder / "cache", **fields).wait()
    assert [e.status for e in ended] == [2, 2], ended
    assert "after 10 batches were left out" in ended[0].output and "after 10 batches were left out" in ended[1].output
    assert len(json.loads((folder / "rollback/skipped.json").read_text())["batches"]) == 10


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"coordinator_address": "localhost:1234"}, "need all of"),
        ({"num_processes": 2, "process_id": 0}, "need all of"),
        ({"coordinator_address": "localhost", "num_processes": 2, "process_id": 0}, "must be HOST:PORT"),
        ({"coordinator_address": "localhost:1234", "num_processes": 2, "process_id": 2}, "process_id"),
    ],
)
def test_incomplete_processes_are_refused(arguments, message):
    with pytest.raises(UserError, match=message):
        distributed.initialize(**arguments)


@pytest.mark.parametrize(("name", "value"), [("SLURM_NTASKS", "1"), ("OMPI_COMM_WORLD_SIZE", "1")])
def test_one_process_of_a_launcher_is_alone(monkeypatch, name, value):
    """JAX would else give it the first of its host's devices only."""
    monkeypatch.setattr(jax.distributed, "initialize", lambda *_, **__: pytest.fail("joined"))
    monkeypatch.setenv(name, value)
    distributed.initialize()
    distributed.initialize(num_processes=1)


def test_an_environment_that_is_not_understood_does_not_train_alone():
    """Only where JAX knows of no launcher at all is a process alone. In a process of its own: JAX must be asleep."""
    code = (
        "import os; from resnet_jax.training import distributed; from resnet_jax.errors import UserError\n"
        "distributed.initialize()\n"
        "os.environ['JAX_COORDINATOR_ADDRESS'] = 'localhost:1234'\n"
        "try: distributed.initialize()\n"
        "except UserError as error: print('refused:', error)\n"
        "import jax; print(jax.process_count(), distributed.is_chief())\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    refused, alone = done.stdout.splitlines()
    assert refused.startswith("refused: cannot join the other processes: Number of processes")
    assert alone == "1 True"
