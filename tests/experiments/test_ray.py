"""The Ray launcher on a cluster of two nodes on this machine, one of which dies in the middle."""

import importlib.util
import json
import re
import signal
import time
from types import SimpleNamespace

import pytest

from experiments.__main__ import main
from experiments.estimate import Rates
from experiments.launchers import ray_cluster
from experiments.launchers.dashboard import Runs
from experiments.launchers.process import LOG
from experiments.plan import State, make_plan, newest_checkpoint, status
from resnet_jax.errors import UserError
from resnet_jax.training.run_record import RunRecord
from tests.experiments.tiny import table, tiny_row

installed = importlib.util.find_spec("ray") is not None
needs_ray = pytest.mark.skipif(not installed, reason="ray is not installed: requirements-ray.txt")

#: Steps of a run that is long enough to be interrupted.
STEPS = 1500


def test_what_a_run_gets():
    cpu, gpu, tpu = {"CPU": 8.0, "memory": 1e9}, {"CPU": 8.0, "GPU": 4.0}, {"CPU": 8.0, "TPU": 4.0}
    assert ray_cluster.cluster([cpu, {"CPU": 4.0}], 1) == ray_cluster.Cluster({"num_cpus": 4}, 3)
    assert ray_cluster.cluster([cpu, {"CPU": 4.0}, {"memory": 1e9}], 2) == ray_cluster.Cluster({"num_cpus": 2}, 6)
    assert ray_cluster.cluster([cpu, gpu, gpu], 1) == ray_cluster.Cluster({"num_cpus": 1, "num_gpus": 1}, 8)
    assert ray_cluster.cluster([gpu], 4) == ray_cluster.Cluster({"num_cpus": 1, "num_gpus": 0.25}, 16)
    assert ray_cluster.cluster([tpu], 1) == ray_cluster.Cluster({"num_cpus": 1, "resources": {"TPU": 1}}, 4)
    with pytest.raises(UserError, match="one process only"):
        ray_cluster.cluster([tpu], 2)
    with pytest.raises(UserError, match="no node"):
        ray_cluster.cluster([{"memory": 1e9}], 1)


@pytest.mark.skipif(installed, reason="ray is installed")
def test_without_ray(tmp_path, listed, capsys):
    listed(table(tiny_row("one")))
    assert main(["he2015.tiny", "run", f"--out={tmp_path}", "--launcher=ray"]) == 2
    assert "needs Ray, which is not installed" in capsys.readouterr().err


@pytest.fixture
def two_nodes(monkeypatch):
    """A cluster of two nodes with room for one run each; RAY_ADDRESS names it."""
    from ray.cluster_utils import Cluster

    monkeypatch.setenv("XLA_FLAGS", "")
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1})
    second = cluster.add_node(num_cpus=1)
    monkeypatch.setenv("RAY_ADDRESS", cluster.address)
    yield SimpleNamespace(cluster=cluster, second=second)
    cluster.shutdown()


class Watcher:
    """A board that calls `look` again and again, and keeps what it was told."""

    def __init__(self, look):
        self.look, self.told, self.deadline = look, [], time.monotonic() + 240

    def start(self, trial):
        self.told.append(("start", trial.name))

    def again(self, trial, outcome):
        self.told.append(("again", trial.name))

    def end(self, trial, outcome):
        self.told.append((outcome.kind, trial.name))

    def tick(self):
        assert time.monotonic() < self.deadline, f"waited in vain: {self.told}"
        self.look()


def long_table():
    fields = {"steps": STEPS, "log_every": 10, "eval_every": STEPS, "checkpoint_every": 20}
    return table(tiny_row("plain", "digits:plain20", **fields), tiny_row("residual", **fields), seeds=2)


@needs_ray
def test_a_node_dies_and_the_table_is_completed(tmp_path, two_nodes):
    """Its run goes on elsewhere from its checkpoint, and in the end every run is there once."""
    plan = make_plan([long_table()], tmp_path)
    lost = []

    def kill_the_second_node():
        running = [trial for trial in plan.trials if 20 <= newest_checkpoint(trial.folder) < STEPS]
        if len(running) >= 2 and not lost:  # both nodes are at work
            lost.extend(running)
            two_nodes.cluster.remove_node(two_nodes.second, allow_graceful=False)

    board = Watcher(kill_the_second_node)
    with ray_cluster.connected(at_once=1) as cluster:
        assert cluster == ray_cluster.Cluster({"num_cpus": 1}, 2)
        cluster.launch(plan.trials, tmp_path, board, SimpleNamespace(signal=None))
    assert lost, "the table was done before a node could be killed"
    assert sorted(told for told in board.told if told[0] != "start") == sorted(("done", t.name) for t in plan.trials)
    assert [status(trial).state for trial in plan.trials] == [State.DONE] * 4
    results = sorted(tmp_path.glob("*/result.json"))
    assert len(results) == 4 and len({json.loads(r.read_text())["config_hash"] for r in results}) == 4
    for trial in plan.trials:  # no step is recorded twice, and none is left out
        lines = RunRecord(trial.folder).lines()
        assert [line["step"] for line in lines if "loss" in line] == list(range(10, STEPS + 1, 10))
    # The one that lost its node was begun twice, and the second time did not begin at 0.
    logs = {trial.name: (trial.folder / LOG).read_text() for trial in plan.trials}
    begun_twice = [name for name, log in logs.items() if log.count("--- ") == 2]
    assert len(begun_twice) == 1
    first, second = (int(step) for step in re.findall(r"from step (\d+) of", logs[begun_twice[0]]))
    assert first == 0 and second >= 20


@needs_ray
def test_a_signal_saves_what_runs(tmp_path, two_nodes):
    plan = make_plan([long_table()], tmp_path)
    stop = SimpleNamespace(signal=None)

    def ask_to_stop():
        if any(newest_checkpoint(trial.folder) for trial in plan.trials):
            stop.signal = signal.SIGTERM

    board = Watcher(ask_to_stop)
    with ray_cluster.connected(at_once=1) as cluster:
        cluster.launch(plan.trials, tmp_path, board, stop)
    kinds = [kind for kind, _ in board.told if kind != "start"]
    assert set(kinds) <= {"stopped", "done"} and len(kinds) == 4
    assert not list(tmp_path.glob(".launch-*"))
    assert not list(tmp_path.glob("*/failed.txt"))


@needs_ray
def test_a_failure_is_reported_through_the_command(tmp_path, two_nodes, listed, capsys):
    listed(table(tiny_row("bad", data__name="mnist"), tiny_row("good")))
    assert main(["he2015.tiny", "run", f"--out={tmp_path}", "--launcher=ray"]) == 1
    captured = capsys.readouterr()
    assert "2 runs: 1 done, 1 failed" in captured.out and "unknown dataset 'mnist'" in captured.err


def test_boards_know_the_runs_of_a_cluster(tmp_path):
    """Time left is shared among the runs that a cluster has room for."""
    plan = make_plan([long_table()], tmp_path)
    rates = Rates()
    for trial in plan.trials:
        rates.add(trial.config, 16, "records")
    runs = Runs(plan, {trial.folder: status(trial) for trial in plan.trials}, rates, at_once=2)
    assert runs.left() == "about 50 min"  # 4 runs of 1500 s, two at a time
