"""`python -m experiments`: listings, and mistakes in one line."""

import re

import pytest

from experiments import registry
from experiments.__main__ import main
from experiments.commands import listing
from experiments.estimate import Rates
from experiments.registry import load
from tests.experiments.fakes import write_experiment, write_row


@pytest.fixture(autouse=True)
def wide(monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")


@pytest.mark.parametrize("arguments", [[], ["list"]])
def test_lists_everything(arguments, capsys, tmp_path):
    assert main([*arguments, f"--runs={tmp_path}"]) == 0
    printed = capsys.readouterr().out
    for name in registry.NAMES:
        line = next(line for line in printed.splitlines() if line.startswith(f"{name} "))
        assert load(name).title in line and f" {len(load(name).rows)} " in line
    assert "he2015.table10" in printed and "not there yet" in printed and "computed" in printed


def test_lists_how_many_runs_are_done(capsys, tmp_path):
    write_experiment(tmp_path, "he2015.figure1", seeds=3)
    write_row(tmp_path, load("he2015.figure1").rows[0], [20.0, 21.0], scale=0.05)
    assert main(["list", f"--runs={tmp_path}"]) == 0
    printed = capsys.readouterr().out
    lines = {line.split()[0]: line for line in printed.splitlines() if line.startswith("he")}
    assert "2 of 2 runs, 2 others" in lines["he2015.figure1"]
    assert "2 of 11 runs" in lines["he2015.figure6"]  # the net of two panels counts once
    assert "0 of 55 runs" in lines["he2016.table1"]


def test_cost_of_the_rest(tmp_path):
    """From a measured rate where there is one; 64,000 steps of 128 images at 1,000 a second are 8,192 s."""
    from experiments.run_index import index_runs
    from experiments.tables import fill

    class Known(Rates):
        def seconds(self, config, steps):
            return steps * config.batch_size / 1000 if "plain" in config.model.name else None

    experiment = load("he2015.figure1")
    filled = fill(experiment, index_runs(tmp_path), with_computed=False)
    assert listing.cost(filled, Known()) == "4.6 h"
    figure6 = fill(load("he2015.figure6"), index_runs(tmp_path), with_computed=False)
    assert listing.cost(figure6, Known()).endswith("and 6 runs not measured")


def test_shows_rows(capsys, tmp_path):
    write_experiment(tmp_path, "he2015.figure1")
    assert main(["he2015.figure1", f"--runs={tmp_path}"]) == 0
    printed = capsys.readouterr().out
    assert "plain-20" in printed and "2, paper 1" in printed and "6.05 ± 0.07" in printed


def test_help_says_what_there_is(capsys):
    assert main(["--help"]) == 0
    assert "NAME render" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["he2015.tabel6"], "did you mean he2015.table6"),
        (["he2015.table6,he2015.tabel3", "render"], "unknown table or figure 'he2015.tabel3'"),
        (["lst"], "did you mean list?"),
        (["he2015.table10"], "he2015.table10 (detection on PASCAL VOC 2007, class by class) is not there yet"),
        (["he2015.table11", "render"], "is not there yet"),
        (["he2015.table6", "rendr"], "unknown command 'rendr'; did you mean render"),
        (["he2015.table6", "render", "--nothing"], "unrecognized arguments: --nothing"),
        (["he2015.table6", "render", "--runs=nowhere"], "--runs=nowhere: there is no such folder"),
        (["he2015.table6", "render", "--set", "dtyp=float32"], "unknown config field 'dtyp'; did you mean dtype?"),
        (["he2015.table6", "render", "--set", "dtype"], "must be FIELD=VALUE"),
        (["he2015.table6", "render", "--set", "seed=1"], "all seeds that there are runs of are shown"),
        (["list", "more"], "unrecognized arguments: more"),
        (["ablation", "--steps=many"], "argument --steps: invalid int value: 'many'"),
        (["readme", "now"], "unrecognized arguments: now"),
    ],
)
def test_mistakes_are_one_line(arguments, said, capsys):
    assert main(arguments) == 2
    printed = capsys.readouterr()
    assert printed.err.startswith("error: ") and said in printed.err and printed.err.count("\n") == 1
    assert not printed.out


@pytest.mark.parametrize("command", [["list"], ["he2015.figure7"], ["he2015.figure7", "render"]])
@pytest.mark.parametrize(
    ("setting", "said"),
    [("dtype=3", "row plain.*: Could not override field 'dtype'"), ("init_from=W", "begin with random weights")],
)
def test_values_that_cannot_be_shown(tmp_path, capsys, command, setting, said):
    write_row(tmp_path, load("he2015.figure7").rows[0], [9.0])
    assert main([*command, f"--runs={tmp_path}", "--set", setting]) == 2
    printed = capsys.readouterr().err
    assert printed.startswith("error: ") and re.search(said, printed) and printed.count("\n") == 1


def test_places_that_cannot_be(tmp_path, capsys):
    (tmp_path / "file").touch()
    (tmp_path / "runs").mkdir()
    assert main(["he2015.table5", "render", f"--runs={tmp_path}/file"]) == 2
    assert "is not a folder" in capsys.readouterr().err
    assert main(["he2015.table5", "render", f"--runs={tmp_path}/runs", f"--out={tmp_path}/file"]) == 2
    assert "cannot write" in capsys.readouterr().err


DAMAGES = {
    "torn": lambda data: data[: len(data) // 2] + b"\n",
    "not UTF-8": lambda data: data.replace(b'"', b'"\xff', 1),
    "nested": lambda data: b"[" * 100_000 + b"\n" + data,
    "another type": lambda data: re.sub(rb"(: *)(-?[0-9.]+)", rb'\1["x"]', data),
    "no number": lambda data: re.sub(rb"(: *)(-?[0-9.]+)", rb"\1NaN", data),
    "too large": lambda data: re.sub(rb"(: *)(-?[0-9.]+)", rb"\g<1>" + b"9" * 400, data),
    "a list": lambda data: b"[]\n" + data,
    "null": lambda data: b"null\n",
    "binary": lambda data: bytes(range(256)) + b"\n",
    "empty": lambda data: b"\n",
}


@pytest.mark.parametrize("file", ["config.json", "result.json", "metrics.jsonl"])
@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_record_is_named_and_the_others_are_drawn(tmp_path, capsys, damage, file):
    bad, good = write_row(tmp_path, load("he2015.figure6").rows[0], [9.0, 8.5])
    (bad / file).write_bytes(DAMAGES[damage]((bad / file).read_bytes()))
    assert main(["he2015.figure6", "render", f"--runs={tmp_path}", f"--out={tmp_path}/report"]) == 0
    warned = capsys.readouterr().err
    assert warned.startswith("warning: left out: ") and str(bad) in warned and warned.count("\n") == 1
    assert str(good) not in warned
    assert "8.50" in (tmp_path / "report" / "he2015.figure6.md").read_text()


def test_missing_records(tmp_path, capsys):
    lines, result, config = write_row(tmp_path, load("he2015.figure6").rows[0], [9.0, 8.5, 8.0])
    (lines / "metrics.jsonl").unlink()
    (result / "result.json").unlink()
    (config / "config.json").unlink()
    assert main(["he2015.figure6", "render", f"--runs={tmp_path}", f"--out={tmp_path}/report"]) == 0
    assert "9.00" in (tmp_path / "report" / "he2015.figure6.md").read_text()
