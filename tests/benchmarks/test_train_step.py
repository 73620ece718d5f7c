"""The step beside its peers: they compute the same, what differs is refused, and the numbers are what they say."""

import dataclasses
import importlib.util
import json
from functools import partial

import numpy as np
import pytest

from benchmarks import hardware_peak, paired_timing, resnet_jax_step, train_step
from benchmarks.__main__ import main
from benchmarks.peers import Implementation, Task, flax_example
from resnet_jax.errors import UserError

TINY = {"stage_sizes": (1, 1), "widths": (4, 8)}


@pytest.fixture(scope="module")
def trainer():
    return resnet_jax_step.make_benchmark_trainer("cifar_resnet20", 8, 16, **TINY, shortcut="A")


@pytest.mark.parametrize("peer", train_step.PEERS)
@pytest.mark.parametrize(
    "fields", [{"shortcut": "A"}, {"shortcut": "B", "block": "bottleneck", "stem": "imagenet", "stride_on": "3x3"}]
)
def test_a_peer_computes_our_losses_and_updates(peer, fields):
    if peer == "torch":
        pytest.importorskip("torch", reason="PyTorch is not installed (benchmarks/requirements-peers.txt)")
    trainer = resnet_jax_step.make_benchmark_trainer("cifar_resnet20", 8, 16, **TINY, **fields)
    task = resnet_jax_step.task(trainer)
    mine, theirs = resnet_jax_step.implementation(trainer), train_step.PEERS[peer](trainer, task, [])
    assert train_step.check("eval", mine, theirs, task).loss < 2e-5
    found = train_step.check("train_step", mine, theirs, task)
    assert found.loss < 2e-5 and found.update < 1e-3 and found.scale < 1e-4 and found.decay < 0.02


@pytest.mark.parametrize(
    ("wrong", "what", "step"),
    [
        ({}, "", 0),
        ({"learning_rate": 1.02 * resnet_jax_step.LEARNING_RATE}, "scale", 1),
        ({"momentum": 0.85}, "scale", 2),
        ({"weight_decay": 0.0}, "decay", 1),
        ({"weight_decay": 1.2e-4}, "decay", 1),
    ],
)
def test_another_rate_momentum_or_decay_is_refused(trainer, wrong, what, step):
    task = resnet_jax_step.task(trainer)
    mine = resnet_jax_step.implementation(trainer)
    theirs = flax_example.implementations(dataclasses.replace(task, **wrong))
    if not wrong:
        train_step.check("train_step", mine, theirs, task)
        return
    with pytest.raises(UserError, match=f"flax_example does not compute the same: {what} differs .* at step {step}"):
        train_step.check("train_step", mine, theirs, task)


@pytest.mark.parametrize("kind", ["train_step", "eval"])
def test_another_weight_is_refused(trainer, kind):
    """One of the stem's 108 weights is greater by a tenth of their standard deviation."""
    task = resnet_jax_step.task(trainer)

    def moved(params):
        kernel = np.array(params["stem"]["conv"]["kernel"])
        kernel[1, 1, 0, 0] += 0.1 * kernel.std()
        return {**params, "stem": {**params["stem"], "conv": {"kernel": kernel}}}

    other = dataclasses.replace(task, variables={**task.variables, "params": moved(task.variables["params"])})
    (theirs,) = flax_example.implementations(other)
    theirs = dataclasses.replace(theirs, step_from=lambda params, step=theirs.step_from: step(moved(params)))
    with pytest.raises(UserError, match="does not compute the same"):
        train_step.check(kind, resnet_jax_step.implementation(trainer), [theirs], task)


@pytest.mark.parametrize(("dtype", "platform", "much"), [
    ("float32", "cpu", 1e-4), ("float32", "gpu", 1e-2), ("float32", "tpu", 0.1), ("bfloat16", "cpu", 0.1),
    ("bfloat16", "gpu", 0.1),
])  # fmt: skip
def test_how_much_is_rounding_follows_from_what_is_computed_in(dtype, platform, much):
    def one(value):
        return Implementation("one", None, lambda count: [value] * count, None)

    task = Task({}, {}, None, None, 0.1, 0.9, 1e-4, dtype)
    assert train_step.check("eval", one(1.0), [one(1 + much / 10)], task, platform).loss == pytest.approx(much / 10)
    for value in (1 + much, np.nan):
        with pytest.raises(UserError, match="one does not compute the same: loss differs by .* at step 1"):
            train_step.check("eval", one(1.0), [one(value)], task, platform)


def test_a_net_and_the_side_of_its_images():
    assert resnet_jax_step.name_and_size("cifar_resnet20@8") == ("cifar_resnet20", 8)
    assert resnet_jax_step.name_and_size("cifar_resnet20", 16) == ("cifar_resnet20", 16)
    for text in ("a@", "a@0", "a@x"):
        with pytest.raises(UserError, match="behind @ stands the side of images"):
            resnet_jax_step.name_and_size(text)


@pytest.mark.long
def test_bytes_are_those_of_one_step_however_many_a_dispatch_has(monkeypatch):
    monkeypatch.setattr(train_step.hardware_peak, "measure_peak", lambda dtype: hardware_peak.Peak(1.0, 1.0))
    found = []
    for most in (1, 3):
        monkeypatch.setattr(resnet_jax_step, "steps_per_dispatch", lambda trainer, most=most: most)
        (row,) = train_step.measure("train_step", ["cifar_resnet20"], ["flax_example"], 8, 8, seconds=0.01,
                                    rounds=2)["rows"]  # fmt: skip
        found.append(row["bytes_per_image"])
    assert found[0] == found[1] > 0


def test_timing_in_turn(monkeypatch):
    """By a clock of its own: work of 1 and of 3 seconds, ten times as long when the machine is busy in round two."""
    clock, calls = [0.0], []

    def work(name, cost, count):
        calls.append(name)
        busy = 10 if len(calls) in (7, 8) else 1
        clock[0] += cost * count * busy

    monkeypatch.setattr(paired_timing.time, "perf_counter", lambda: clock[0])
    monkeypatch.setattr(paired_timing.time, "process_time", lambda: 2 * clock[0])
    found = paired_timing.time_in_turn(
        {"a": partial(work, "a", 1.0), "b": partial(work, "b", 3.0)}, seconds=6, rounds=3
    )
    assert calls == ["a", "a", "b", "b", "a", "b", "b", "a", "a", "b"]
    assert found["a"].rates == pytest.approx((1, 0.1, 1)) and found["b"].rate == pytest.approx(1 / 3)
    assert found["a"].cpu == pytest.approx(2) and found["b"].spread == pytest.approx((1 / 30, 1 / 3))
    assert paired_timing.ratio(found["a"].rates, found["b"].rates) == pytest.approx(3)


def test_the_peak_is_what_a_product_and_a_copy_take(monkeypatch):
    monkeypatch.setattr(hardware_peak, "_least_seconds", lambda work, seconds: 0.5)
    found = hardware_peak.measure_peak("float32")
    assert (found.flops, found.bandwidth) == (2 * 1024**3 / 0.5, 8 * 2**25 / 0.5)
    assert hardware_peak.training_flops(10) == 60


@pytest.mark.long
def test_the_command_prints_one_object(capsys):
    arguments = ["--batch_size=8", "--image_size=8", "--seconds=0.01", "--rounds=2", "--json"]
    assert main(["eval", "--model=cifar_resnet20", *arguments]) == 0
    found = json.loads(capsys.readouterr().out.splitlines()[-1])
    (row,) = found["rows"]
    assert found["ratio"] == row["ratio"] > 0 and row["peer"] == "flax_example" and row["bytes_per_image"] > 0
    assert row["implementations"].keys() == {"resnet_jax", "flax_example"}


def test_mistakes(capsys):
    assert main(["train_step", "--peer=banana", "--batch_size=8", "--image_size=8", "--rounds=1"]) == 2
    assert "unknown peer 'banana'" in capsys.readouterr().err
    assert main(["train_step", "--model=vgg16", "--batch_size=8", "--image_size=32", "--rounds=1"]) == 2
    assert "the peers have no vgg16" in capsys.readouterr().err
    if importlib.util.find_spec("torch") is None:
        assert main(["train_step", "--peer=torch"]) == 2
        assert "pip install -r benchmarks/requirements-peers.txt" in capsys.readouterr().err


@pytest.mark.long
def test_groups_of_batch_norm_are_held_against_the_whole_batch(capsys):
    command = ["train_step", "--model=cifar_resnet20@8", "--batch_size=16", "--seconds=0", "--rounds=1"]
    assert main([*command, "--peer=whole_batch", "--bn_group_size=8", "--json"]) == 0
    (row,) = json.loads(capsys.readouterr().out)["rows"]
    assert set(row["implementations"]) == {"resnet_jax", "resnet_jax, whole batch"} and row["ratio"] > 0
    assert main([*command, "--peer=xla", "--bn_group_size=8"]) == 2
    assert "--bn_group_size is for --peer=whole_batch" in capsys.readouterr().err
