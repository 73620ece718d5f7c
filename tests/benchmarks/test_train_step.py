"""Contests: the peers' nets are ours, the numbers are what they are called, and a step that differs is refused."""

import importlib.util
import json
from functools import partial

import numpy as np
import pytest

from benchmarks import hardware_peak, resnet_jax_step, train_step
from benchmarks.__main__ import main
from benchmarks.peers import Contestant
from resnet_jax.errors import UserError

TINY = {"stage_sizes": (1, 1), "widths": (4, 8)}


@pytest.mark.parametrize("peer", train_step.PEERS)
@pytest.mark.parametrize(
    "fields", [{"shortcut": "A"}, {"shortcut": "B", "block": "bottleneck", "stem": "imagenet", "stride_on": "3x3"}]
)
def test_a_peer_computes_our_losses(peer, fields):
    if peer == "torch":
        pytest.importorskip("torch", reason="PyTorch is not installed (benchmarks/requirements-peers.txt)")
    trainer = resnet_jax_step.make_benchmark_trainer("cifar_resnet20", 8, 16, **TINY, **fields)
    mine, theirs = resnet_jax_step.contestant(trainer), train_step.contestants_of(peer, trainer, [])
    assert train_step.check("eval", mine, theirs, "float32") < 2e-5
    assert train_step.check("train_step", mine, theirs, "float32") < 5e-4


def test_what_does_not_compute_the_same_is_refused():
    def one(name, values):
        return Contestant(name, lambda count: values[:count], lambda count: values[:count])

    mine = one("ours", [2.0, 1.9, 1.8, 1.7])
    assert train_step.check("train_step", mine, [one("a", [2.00001, 1.9, 1.8, 1.7005])], "float32") < 5e-4
    for values, step in (([2.001, 1.9, 1.8, 1.7], 1), ([2.0, 1.9, 1.8, 1.69], 4), ([2.0, np.nan, 1.8, 1.7], 2)):
        with pytest.raises(UserError, match=f"b does not compute the same: loss .* at step {step}, ours"):
            train_step.check("train_step", mine, [one("b", values)], "float32")


@pytest.mark.parametrize(("dtype", "platform", "much"), [
    ("float32", "cpu", 1e-4), ("float32", "gpu", 1e-2), ("float32", "tpu", 0.1), ("bfloat16", "cpu", 0.1),
    ("bfloat16", "gpu", 0.1),
])  # fmt: skip
def test_how_much_is_rounding_follows_from_what_is_computed_in(dtype, platform, much):
    def one(value):
        return Contestant("one", lambda count: [value] * count, None)

    assert train_step.check("train_step", one(1.0), [one(1 + much / 10)], dtype, platform) == pytest.approx(much / 10)
    with pytest.raises(UserError, match="does not compute the same"):
        train_step.check("train_step", one(1.0), [one(1 + much)], dtype, platform)


def test_bytes_are_those_of_one_step_however_many_a_dispatch_has(monkeypatch):
    monkeypatch.setattr(train_step.hardware_peak, "measure_roof", lambda dtype: hardware_peak.Roof(1.0, 1.0))
    found = []
    for most in (1, 3):
        monkeypatch.setattr(resnet_jax_step, "steps_per_dispatch", lambda trainer, most=most: most)
        (row,) = train_step.measure("train_step", ["cifar_resnet20"], ["flax_example"], 8, 8, "float32", [], 0.01, 2,
                                    lambda text: None)  # fmt: skip
        found.append(row["bytes_per_image"])
    assert found[0] == found[1] > 0


def test_a_contest_measures_rates_and_takes_turns(monkeypatch):
    """By a clock of its own: work of 1 and of 3 seconds, ten times as long when the machine is busy in round two."""
    clock, calls = [0.0], []

    def work(name, cost, count):
        calls.append(name)
        busy = 10 if len(calls) in (7, 8) else 1
        clock[0] += cost * count * busy

    monkeypatch.setattr(paired_timing.time, "perf_counter", lambda: clock[0])
    monkeypatch.setattr(paired_timing.time, "process_time", lambda: 2 * clock[0])
    found = paired_timing.contest({"a": partial(work, "a", 1.0), "b": partial(work, "b", 3.0)}, seconds=6, rounds=3)
    assert calls == ["a", "a", "b", "b", "a", "b", "b", "a", "a", "b"]
    assert found["a"].rates == pytest.approx((1, 0.1, 1)) and found["b"].rate == pytest.approx(1 / 3)
    assert found["a"].cpu == pytest.approx(2) and found["b"].spread == pytest.approx((1 / 30, 1 / 3))
    assert paired_timing.ratio(found["a"].rates, found["b"].rates) == pytest.approx(3)


def test_the_roof_is_what_a_product_and_a_copy_take(monkeypatch):
    monkeypatch.setattr(hardware_peak, "_least_seconds", lambda work, seconds: 0.5)
    found = hardware_peak.measure_roof("float32")
    assert (found.flops, found.bandwidth) == (2 * 1024**3 / 0.5, 8 * 2**25 / 0.5)
    assert hardware_peak.training_flops(10) == 60


def test_the_command_prints_one_object(capsys):
    arguments = ["--batch_size=8", "--image_size=8", "--seconds=0.01", "--rounds=2", "--json"]
    assert main(["eval", "--model=cifar_resnet20", *arguments]) == 0
    found = json.loads(capsys.readouterr().out.splitlines()[-1])
    (row,) = found["rows"]
    assert found["ratio"] == row["ratio"] > 0 and row["peer"] == "flax_example" and row["bytes_per_image"] > 0
    assert row["contestants"].keys() == {"resnet_jax", "flax_example"}


def test_mistakes(capsys):
    assert main(["train_step", "--peer=banana", "--batch_size=8", "--image_size=8", "--rounds=1"]) == 2
    assert "unknown peer 'banana'" in capsys.readouterr().err
    assert main(["train_step", "--model=vgg16", "--batch_size=8", "--image_size=32", "--rounds=1"]) == 2
    assert "the peers have no vgg16" in capsys.readouterr().err
    if importlib.util.find_spec("torch") is None:
        assert main(["train_step", "--peer=torch"]) == 2
        assert "pip install -r benchmarks/requirements-peers.txt" in capsys.readouterr().err


def test_groups_of_batch_norm_are_held_against_the_whole_batch(capsys):
    command = ["train_step", "--model=cifar_resnet20@8", "--batch_size=16", "--seconds=0", "--rounds=1"]
    assert main([*command, "--peer=whole_batch", "--bn_group_size=8", "--json"]) == 0
    (row,) = json.loads(capsys.readouterr().out)["rows"]
    assert set(row["contestants"]) == {"resnet_jax", "resnet_jax, whole batch"} and row["ratio"] > 0
    assert main([*command, "--peer=xla", "--bn_group_size=8"]) == 2
    assert "--bn_group_size is for --peer=whole_batch" in capsys.readouterr().err
