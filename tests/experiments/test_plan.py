"""What a plan finds: which runs there are, which are missing, which rows share one."""

import json

import pytest

from experiments.estimate import Rates, duration, net_key, operations, recorded_rates, same_hardware
from experiments.experiment import Row, row_config
from experiments.launchers.process import request
from experiments.plan import FAILURE, State, make_plan, status
from experiments.run_index import index_runs
from experiments.train_run import carry_out
from resnet_jax.config import model_overrides
from resnet_jax.errors import UserError
from resnet_jax.models.registry import create_model
from resnet_jax.models.summary import summarize
from resnet_jax.training.loop import fit
from tests.experiments.tiny import DiesAt, table, tiny_row


def states(plan):
    return [status(trial).state for trial in plan.trials]


def test_rows_by_seeds_each_run_once_and_seed_by_seed(tmp_path):
    experiment = table(
        tiny_row("one"), tiny_row("same"), tiny_row("other", "digits:plain20"), Row("quoted", "Maxout", paper=(9.38,)),
        seeds=2,
    )  # fmt: skip
    plan = make_plan([experiment], tmp_path)
    assert [line.row.name for line in plan.lines] == ["one", "same", "other"]
    assert [trial.name for trial in plan.trials] == ["one seed 0", "other seed 0", "one seed 1", "other seed 1"]
    assert plan.lines[0].trials == plan.lines[1].trials and plan.own()[1] == []
    assert states(plan) == [State.MISSING] * 4
    assert not list(tmp_path.iterdir())
    # Another figure with fewer seeds has nothing new to run.
    both = make_plan([experiment, table(tiny_row("curve"), name="he2015.figure")], tmp_path)
    assert [trial.folder for trial in both.trials] == [trial.folder for trial in plan.trials]
    assert both.own()[-1] == []


def test_scale_and_changes_make_other_runs(tmp_path):
    experiment = table(tiny_row("one", steps=600))
    plain, scaled, moved, wider = (
        make_plan([experiment], tmp_path, **arguments).trials[0]
        for arguments in (
            {},
            {"steps_scale": 0.5},
            {"changes": {"keep_checkpoints": 9}},
            {"changes": {"batch_size": 32}},
        )
    )
    assert (scaled.config.steps, scaled.config.steps_scale) == (300, 0.5)
    assert scaled.folder != plain.folder != wider.folder
    assert moved.folder == plain.folder  # how a run is carried out is no part of what it is


def test_states(tmp_path, monkeypatch):
    plan = make_plan([table(tiny_row("one"), seeds=4)], tmp_path)
    done, part, failed, missing = plan.trials
    carry_out(request(done))
    with pytest.raises(KeyboardInterrupt):
        fit(part.config, part.folder, DiesAt(3))  # after the checkpoint of step 2
    failed.folder.mkdir()
    (failed.folder / FAILURE).write_text("exit status 1\nMemoryError\n")
    assert states(plan) == [State.DONE, State.PART, State.FAILED, State.MISSING]
    assert (status(done).step, status(part).step, status(missing).step) == (6, 2, 0)
    assert status(failed).note == "exit status 1\nMemoryError"

    rates = recorded_rates(tmp_path)
    assert rates.seconds(missing.config, 6) > 0 and rates.source(missing.config) == "records"
    hardware = json.loads((done.folder / "result.json").read_text())["hardware"]
    assert same_hardware(hardware, hardware)
    elsewhere = recorded_rates(tmp_path, hardware | {"device": "TPU v9"})
    assert elsewhere.seconds(missing.config, 6) is None


def test_runs_evaluated_more_rarely_are_done_or_go_on_as_they_began(tmp_path):
    tables = [table(tiny_row("one"), seeds=3)]
    rare = make_plan(tables, tmp_path, changes={"eval_every": 6})
    carry_out(request(rare.trials[0]))
    with pytest.raises(KeyboardInterrupt):
        fit(rare.trials[1].config, rare.trials[1].folder, DiesAt(3))
    plan = make_plan(tables, tmp_path, index=index_runs(tmp_path))
    assert states(plan) == [State.DONE, State.PART, State.MISSING]
    for trial in plan.trials[1:]:
        carry_out(request(trial))
    assert states(plan) == [State.DONE] * 3 and len(list(tmp_path.iterdir())) == 3
    assert [status(trial).state for trial in rare.trials] == [State.DONE, State.DONE, State.MISSING]


@pytest.mark.parametrize(
    ("file", "text", "message"),
    [
        ("result.json", "{", "cannot read"),
        ("result.json", "{}", "was not written by this version"),
        ("config.json", "[]", "holds no JSON object"),
    ],
)
def test_a_damaged_record_is_a_failure_and_not_a_result(tmp_path, file, text, message):
    (trial,) = make_plan([table(tiny_row("one"))], tmp_path).trials
    carry_out(request(trial))
    (trial.folder / file).write_text(text)
    found = status(trial)
    assert found.state is State.FAILED and message in found.note


def test_a_result_of_another_config_is_not_taken(tmp_path):
    one, other = make_plan([table(tiny_row("one"), tiny_row("other", "digits:plain20"))], tmp_path).trials
    carry_out(request(one))
    one.folder.rename(other.folder)
    assert status(other).state is State.FAILED and "another config" in status(other).note


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"rows": "on"}, "unknown row of he2015.tiny 'on'; did you mean one?"),
        ({"changes": {"steps": 0}}, "row one: config.steps=0 must be 1 or more"),
        ({"changes": {"steps": "many"}}, "row one: "),
        ({"changes": {"model.shortcut": "E"}}, "row one: unknown shortcut 'E'"),
        ({"changes": {"model.name": "cifar_resnet21"}}, "row one: unknown net"),
    ],
)
def test_what_cannot_be_run_is_said_at_once(tmp_path, arguments, message):
    with pytest.raises(UserError, match=message.replace(".", r"\.").replace("?", r"\?")):
        make_plan([table(tiny_row("one"))], tmp_path, **arguments)


def test_nothing_to_run(tmp_path):
    with pytest.raises(UserError, match="no row that can be run"):
        make_plan([table(Row("quoted", "Maxout"))], tmp_path)


def test_a_rate_is_the_nets_whatever_the_seed_and_length(tmp_path):
    trials = make_plan([table(tiny_row("one"), tiny_row("wide", batch_size=32), seeds=2)], tmp_path).trials
    one, wide, again, _ = (trial.config for trial in trials)
    assert net_key(one) == net_key(again) != net_key(wide)
    rates = Rates()
    rates.add(one, 100, "records")
    rates.add(one, 160, "this launch")  # in the place of its earlier one
    assert rates.seconds(again, 10) == 1.0 and rates.seconds(wide, 10) is None


def test_durations():
    assert [duration(s) for s in (12, 300, 16200, 280000)] == ["12 s", "5 min", "4.5 h", "3.2 days"]


@pytest.mark.parametrize("net", ["plain32", "resnet56", "preact_resnet164"])
def test_operations_of_deep_nets_are_counted_from_shallow_ones(net):
    """All units of a stage but the first cost the same, so that a thousand layers need not be traced."""
    config = row_config(Row("a", "A", f"cifar10:{net}"))
    whole = summarize(create_model(f"cifar_{net}", **model_overrides(config)), net, 32)
    assert operations(config) == (whole.depth, whole.flops)
