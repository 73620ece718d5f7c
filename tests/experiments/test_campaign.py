"""The order of the campaign, what fits into a time, the proof before it, and the whole command at a tiny scale."""

import dataclasses
import signal
import time
from pathlib import Path

import pytest

from experiments import campaign_plan as campaign
from experiments.__main__ import main
from experiments.estimate import Rates
from experiments.launchers.process import Outcome
from experiments.plan import State, status
from resnet_jax.config import config_hash
from resnet_jax.errors import UserError
from resnet_jax.training.result import Result
from resnet_jax.training.run_folder import RunFolder
from tests.experiments.fakes import write_run
from tests.experiments.tiny import TINY, InProcess

DIGITS = {**TINY, "data.name": "digits", "data.padding": 1}


def test_the_order_is_that_of_worth_and_each_run_is_there_once(tmp_path):
    found = campaign.make_campaign(tmp_path)
    names = [(t.config.model.name, t.config.seed) for t in found.trials]
    assert names[:5] == [(f"cifar_{net}", 0) for net in ("resnet20", "resnet56", "resnet110", "plain20", "plain56")]
    assert names[5:11] == [("cifar_resnet32", 0), ("cifar_resnet44", 0), *(("cifar_resnet110", s) for s in range(1, 5))]
    folders = [trial.folder for trial in found.trials]
    assert len(folders) == len(set(folders))
    assert {line.experiment.name for line in found.lines} == {stage.experiment for stage in campaign.STAGES}
    table6 = {line.row.name: len(line.trials) for line in found.lines if line.experiment.name == "he2015.table6"}
    assert table6 == {"resnet20": 5, "resnet32": 5, "resnet44": 5, "resnet56": 5, "resnet110": 5, "resnet1202": 1}


@pytest.fixture
def proof(tmp_path):
    """A finished short run whose record says 1,000 images/s, and two seconds beside its steps."""
    trials = campaign.proof_trials(tmp_path, 1)
    config = trials[0].config
    record = RunFolder(trials[0].folder)
    record.open(config)
    record.finish(
        Result(
            model="cifar_resnet20", dataset="cifar10", config_hash=config_hash(config), commit="", versions={},
            hardware={}, finished="", seed=0, steps=2000, batch_size=128, seconds=2 + 2000 * 128 / 1000,
            images_per_second=1000.0, depth=20, params=269722, flops=0,
            metrics={"train_error": 20.0, "test_error": 20.0, "best_test_error": 20.0}, evaluated_on="test",
        )
    )  # fmt: skip
    return trials


def test_what_fits_goes_first_and_a_long_run_lets_shorter_ones_through(tmp_path, proof):
    shown = campaign.check_proof(proof, 1.0)
    assert (shown.images_per_second, round(shown.overhead, 6)) == (1000.0, 2.0)
    stages = [campaign.Stage("he2015.table6", ("resnet20", "resnet110", "resnet32"), 1)]
    trials = campaign.make_campaign(tmp_path, stages=stages).trials
    base = proof[0].config
    seconds_of = campaign.Seconds(Rates(), shown, base)
    # 64,000 steps of 128 images at 1,000 images/s; 32 layers take 32/20 or, by multiply-adds, more.
    assert seconds_of(trials[0]) == pytest.approx(8192 + 2)
    by_layers = {t.row: seconds_of(t) / seconds_of(trials[0]) for t in trials}
    assert by_layers["resnet32"] == pytest.approx(69.1 / 40.8, rel=0.02)  # billions of multiply-adds, counted apart
    assert by_layers["resnet110"] == pytest.approx(252.9 / 40.8, rel=0.02)
    inside, outside = campaign.fitting(trials, seconds_of, 25_000, 1)
    assert [t.row for t in inside] == ["resnet20", "resnet32"] and [t.row for t in outside] == ["resnet110"]
    assert len(campaign.fitting(trials, seconds_of, 14_000, 2)[0]) == 2  # on two lanes
    rates = Rates()
    rates.add(trials[1].config, 1e6, "records")
    assert campaign.Seconds(rates, shown, base)(trials[1]) < 30  # a known rate is believed


def test_a_short_run_that_learned_too_little_stops_everything(proof):
    record = RunFolder(proof[0].folder)
    record.finish(dataclasses.replace(record.result(), metrics={"test_error": 55.0}))
    with pytest.raises(UserError, match="55.00 % test error .* not below 50"):
        campaign.check_proof(proof, 1.0)
    campaign.check_proof(proof, 0.001)  # shrunk, it says nothing


def test_the_clock_asks_to_stop_as_a_signal_does():
    with campaign.Deadline(time.monotonic() + 0.05) as stop:
        assert stop.signal is None
        time.sleep(0.1)
        assert stop.signal is signal.SIGALRM
    with campaign.Deadline(time.monotonic() + 60) as stop:
        signal.raise_signal(signal.SIGTERM)
        assert stop.signal is signal.SIGTERM
    with campaign.Deadline(time.monotonic() + 0.05) as stop:
        signal.raise_signal(signal.SIGTERM)
        time.sleep(0.1)  # while what runs saves its state
        assert stop.signal is signal.SIGTERM


@pytest.fixture
def tiny_campaign(monkeypatch):
    """Two rows, run in this process, on digits."""
    stages = (campaign.Stage("he2015.table6", ("resnet20",), 2), campaign.Stage("he2015.figure6", ("plain20",), 1))
    monkeypatch.setattr(campaign, "STAGES", stages)
    monkeypatch.setattr("experiments.launchers.local.TrialProcess", InProcess)
    monkeypatch.setattr(InProcess, "started", [])
    return stages


def _command(out: Path, minutes: float) -> list[str]:
    fields = [f"{name}={value}" for name, value in DIGITS.items()]
    scale = "--steps_scale=0.5"
    return ["campaign", f"--minutes={minutes}", f"--out={out}", "--no-publish", scale, "--set", *fields]


@pytest.mark.long
def test_the_whole_command(tmp_path, tiny_campaign, capsys):
    options = _command(tmp_path, 5)
    assert main(options) == 0
    trials = campaign.make_campaign(tmp_path, 0.5, DIGITS).trials
    assert len(trials) == 3 and all(status(trial).state is State.DONE for trial in trials)
    assert "3 of 3 runs fit" in capsys.readouterr().out
    assert len(InProcess.started) == 4  # these, and the short one
    assert main(options) == 0
    assert len(InProcess.started) == 4


def test_no_time_and_wrong_values_are_said(tmp_path, tiny_campaign, capsys):
    assert main(_command(tmp_path, 0.1)) == 2  # the reserve alone is longer
    assert "is over before the short run is" in capsys.readouterr().err
    assert main(["campaign", "--minutes=soon"]) == 2
    assert "must be a number above 0" in capsys.readouterr().err
    assert main(["campaign", "--minutes=1", "--set", "data.data_dir=nowhere"]) == 2
    assert "nowhere" in capsys.readouterr().err


@pytest.fixture
def launched(tiny_campaign, monkeypatch):
    """Runs of `launch` are there at once, without training, unless a test does otherwise with the row."""
    does = {}

    def launch(trials, slots, board, stop):
        for trial in trials:
            if trial.row in does:
                does[trial.row](trial, board)
            else:
                write_run(trial.folder.parent, trial.config, 20.0)

    monkeypatch.setattr("experiments.launchers.local.launch", launch)
    monkeypatch.setattr("experiments.publish.publish", lambda *_: pytest.fail("published"))
    return does


@pytest.mark.parametrize("row", ["proof", "plain20"])
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_it_before_anything_is_analysed_or_published(
    tmp_path, launched, row, number, capsys, monkeypatch
):
    monkeypatch.setattr("experiments.finished.analyse_finished", lambda *_: pytest.fail("analysed"))
    launched[row] = lambda trial, board: signal.raise_signal(number)
    assert main([part for part in _command(tmp_path, 5) if part != "--no-publish"]) == 75
    assert f"stopped: {number.name}; what ran is saved in {tmp_path}" in capsys.readouterr().err


def test_runs_of_changed_fields_are_not_published(tmp_path, launched, capsys):
    launched["plain20"] = lambda trial, board: board.end(trial, Outcome("failed", "no memory", 1))
    assert main([part for part in _command(tmp_path, 5) if part != "--no-publish"]) == 1
    printed = capsys.readouterr()
    assert "nothing is published" in printed.out and "plain20 seed 0 failed:\nno memory" in printed.err
