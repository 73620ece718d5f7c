"""`python -m experiments NAME run`: what is missing is run, once; failures are told."""

import dataclasses
import json
import re

import pytest

from experiments import estimate, registry
from experiments.__main__ import main
from experiments.commands.options import changes
from experiments.commands.run import absolute
from experiments.experiment import Row, row_config, runnable
from experiments.launchers import devices, timing
from experiments.plan import make_plan
from experiments.run_index import index_runs
from experiments.tables import fill
from resnet_jax.training.loop import fit
from tests.data.imagenet.conftest import tiny_folder  # noqa: F401
from tests.experiments.tiny import TINY, table, tiny_row

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


def test_runs_on_imagenet_are_tested_as_their_table_asks(tmp_path, tiny_folder, listed, in_process, capsys):  # noqa: F811
    """Once: crops, scales, the authors' pool, recomputed statistics. Then the table has the numbers."""
    fields = TINY | {
        "data.data_dir": str(tiny_folder), "data.workers": 2, "data.image_size": 224, "batch_size": 8, "steps": 1,
        "model.widths": (4, 4), "model.stage_sizes": (1, 1),
    }  # fmt: skip
    row = Row("net", "net", "imagenet:resnet18", fields, (25.0, 7.0))
    experiment = dataclasses.replace(
        table(row, name="he2015.photographs"), columns=("top1", "top5"), metric="single_crop_320", recompute_bn=8
    )
    listed(experiment)
    assert main([experiment.name, "run", f"--out={tmp_path / 'runs'}"]) == 0
    assert "320 pixels" in capsys.readouterr().out
    (path,) = tmp_path.glob("runs/*/evaluations/single_crop_320.json")
    found, written = json.loads(path.read_text()), path.stat().st_mtime_ns
    assert (found["protocol"], found["crop"], found["recompute_bn"], found["examples"]) == ("crop320", 320, 8, 6)
    assert found["pool_size"] == 224 // 8
    (entry,) = fill(experiment, index_runs(tmp_path / "runs"), with_computed=False).entries
    assert entry.measures[0].ours.values == (found["test_error"],)
    assert main([experiment.name, "run", f"--out={tmp_path / 'runs'}"]) == 0
    assert path.stat().st_mtime_ns == written


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


def test_dry_run_names_the_tests_of_the_rows_that_were_asked_for(tmp_path, capsys):
    rows = "--rows=resnet152_original_224"
    assert main(["he2016.table5", "run", f"--out={tmp_path}", rows, "--launcher=ray", "--dry_run"]) == 0
    printed = capsys.readouterr().out
    assert "single_crop_224" in printed and "single_crop_320" not in printed


def test_dry_run_times_some_steps_where_there_is_no_record(tmp_path, listed, capsys, monkeypatch):
    listed(table(tiny_row("one", steps=60_000)))
    monkeypatch.setenv("COLUMNS", "120")
    monkeypatch.setenv("XLA_FLAGS", "")
    assert main(["he2015.tiny", "run", f"--out={tmp_path}", "--dry_run", "--measure"]) == 0
    printed = capsys.readouterr().out
    assert re.search(r"One +missing +\d+ (s|min) +6 steps, timed", printed)
    assert re.search(r"total: about \d+ (s|min) of training, one run after another", printed)
    assert not list(tmp_path.iterdir())


def test_dry_run_trains_nothing_and_says_how_it_knows(tmp_path, listed, in_process, capsys, monkeypatch):
    """A net without a record is taken to be as fast as its multiply-adds say, beside a net that has one."""
    wide = {"model.widths": (8, 16, 16), "model.stage_sizes": (1, 1, 1), "steps": 3_000_000}
    small = tiny_row("one")
    listed(table(small, dataclasses.replace(small, name="wide", label="Wide", changes=small.changes | wide)))
    monkeypatch.setenv("COLUMNS", "120")
    assert main(["he2015.tiny", "run", f"--out={tmp_path}", "--rows=one"]) == 0
    (path,) = tmp_path.glob("*/result.json")
    record = json.loads(path.read_text()) | {"images_per_second": 1000.0}
    path.write_text(json.dumps(record))
    monkeypatch.setattr(devices, "probe", lambda env: {"hardware": record["hardware"], "chips": 1})
    monkeypatch.setattr(estimate, "PUBLISHED", tmp_path / "none")
    monkeypatch.setattr(timing, "measure", lambda *_: pytest.fail("it trains"))
    capsys.readouterr()
    assert main(["he2015.tiny", "run", f"--out={tmp_path}", "--dry_run"]) == 0
    printed = capsys.readouterr().out
    one, other = (trial.config for trial in make_plan([registry.load("he2015.tiny")], tmp_path).trials)
    # Multiply-adds counted by hand: 3x3 kernels of a stem and two layers a block, and two shortcuts without weights.
    by_hand = 64 * 9 * 3 * 8 + 64 * 2 * 9 * 8 * 8 + 16 * 9 * 8 * 16 + 16 * 9 * 16 * 16 + 4 * 2 * 9 * 16 * 16 + 16 * 10
    assert estimate.operations(other) == (8, by_hand)
    seconds = 3_000_000 * other.batch_size / 1000 * by_hand / estimate.operations(one)[1]
    assert f"{estimate.duration(seconds)}  multiply-adds and resnet20" in printed
    assert "nothing was trained for this" in printed and len(in_process.started) == 1


def test_run_finds_what_the_listing_calls_done(tmp_path, listed, in_process, capsys, monkeypatch):
    """A run in a folder of another name and place is that of the row: `make ablation`'s runs, say."""
    experiment = table(tiny_row("one"), tiny_row("other", "digits:plain20"))
    listed(experiment)
    monkeypatch.chdir(tmp_path)
    (row, _) = experiment.rows
    fit(row_config(row), "runs/ablation/resnet20")
    assert main(["he2015.tiny", "run"]) == 0
    assert [folder.name[:13] for folder in in_process.started] == ["cifar_plain20"]
    assert "2 runs: 2 done" in capsys.readouterr().out and len(list(tmp_path.glob("runs/papers/*/result.json"))) == 1
    # With --out, only what lies there: `render --runs` of the same folder finds it all.
    assert main(["he2015.tiny", "run", "--out=elsewhere"]) == 0
    assert len(in_process.started) == 3 and len(list(tmp_path.glob("elsewhere/*/result.json"))) == 2


def test_a_run_that_went_on_with_changed_fields_is_no_row_of_a_table(tmp_path, listed, in_process, capsys, monkeypatch):
    experiment = table(tiny_row("one"))
    listed(experiment)
    monkeypatch.chdir(tmp_path)
    config = row_config(experiment.rows[0])
    config.seed, config.steps = 1, config.steps - 2
    fit(config, "runs/mixed")
    fit(row_config(experiment.rows[0]), "runs/mixed", force=["seed", "steps"])
    assert main(["he2015.tiny"]) == 0
    captured = capsys.readouterr()
    assert "0 of 1" in captured.out
    assert "runs/mixed: its first 4 steps were done with seed=1, not 0, steps=4, not 6" in captured.err
    assert main(["he2015.tiny", "run"]) == 0
    assert len(in_process.started) == 1


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
        (["--set", "init_from=W"], "row one: its runs begin with random weights"),
        (["--set", "init_hash=0123"], "runs take it from init_from"),
        (["--set", "dtype=3"], "row one: Could not override field 'dtype'"),
        (["--set", "data.data_dir=/no/such"], "data.data_dir=/no/such is not a folder"),
        (["--step=3"], "unrecognized arguments: --step=3"),
        (["--measure"], "--measure is for --dry_run on this machine"),
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


def test_paths_of_set_are_those_of_the_user(tmp_path, monkeypatch):
    """A run is a process that begins in the checkout: `data` must stay the folder beside the user."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", "/home/somebody")
    found = absolute({"data.data_dir": "data", "init_from": "~/w", "steps": 3})
    assert found == {"data.data_dir": str(tmp_path / "data"), "init_from": "/home/somebody/w", "steps": 3}


def test_a_whole_paper(tmp_path, capsys, monkeypatch):
    """All runs of its tables and figures, each once: that of figure 6 is that of table 6."""
    monkeypatch.setenv("COLUMNS", "200")
    asked = [f"--out={tmp_path}", "--seeds=1", "--launcher=ray", "--dry_run"]
    assert main(["he2015", "run", *asked]) == 0
    printed, said = capsys.readouterr()
    weights = ["he2015.table7", "he2015.table8", "he2015.table9"]
    assert f"begin with weights: {', '.join(weights)}; run each by itself" in said
    others = [name for name in registry.expand("he2015") if runnable(registry.load(name)) and name not in weights]
    assert all(name in printed for name in others) and not any(name in printed for name in weights)
    assert "ResNet-1202" in printed and " shared" in printed
    assert main(["he2015.table6,he2015", "run", "--rows=resnet20", *asked]) == 2
    assert "--rows is for one table or figure at a time" in capsys.readouterr().err
