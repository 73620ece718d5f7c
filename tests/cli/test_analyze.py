"""`analyze`: from a run to pictures, and mistakes in one line."""

import io
import json

import pytest

from resnet_jax.__main__ import main
from resnet_jax.cli import progress_bar as progress_bar_module
from resnet_jax.cli.progress_bar import progress_bar
from resnet_jax.training.loop import fit
from resnet_jax.training.run_folder import RunFolder


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    from configs.digits import get_config

    config = get_config("resnet20")
    config.model.stage_sizes, config.model.widths = (2, 1), (4, 8)
    config.update({"steps": 2, "batch_size": 16, "log_every": 1, "eval_every": 2, "checkpoint_every": 2})
    folder = tmp_path_factory.mktemp("analyze") / "run"
    fit(config, folder)
    return folder


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("responses", ["--split=train"]),
        ("gradients", ["--steps=0,2"]),
        ("surface", ["--points=3", "--images=20"]),
        ("lesion", ["--repeats=1"]),
    ],
)
def test_writes_and_says_where(capsys, run, tmp_path, name, options):
    assert main(["analyze", name, f"--workdir={run}", f"--out={tmp_path / 'out'}", *options]) == 0
    out, err = capsys.readouterr()
    assert out.splitlines() == [str(run / f"{name}.json"), *(str(tmp_path / f"out/{name}.{t}") for t in ("png", "svg"))]
    assert f"{name} run: " in err and "0 s left" in err
    json.loads((run / f"{name}.json").read_text())
    assert (tmp_path / f"out/{name}.png").stat().st_size > 10_000

    assert main(["analyze", name, "--draw", f"--workdir={run},{run}"]) == 0  # two: beside the first one's folder
    assert capsys.readouterr().out.splitlines() == [str(run.parent / f"{name}.{t}") for t in ("png", "svg")]


def test_help_is_about_the_analysis(capsys):
    for name, own, foreign in (("surface", "--points", "--repeats"), ("lesion", "--repeats", "--span")):
        with pytest.raises(SystemExit):
            main(["analyze", name, "--help"])
        out = capsys.readouterr().out
        assert own in out and foreign not in out and "--workdir" in out and f"analyze {name}" in out


def fails(capsys, *arguments):
    assert main(["analyze", *arguments]) == 2
    out, err = capsys.readouterr()
    assert out == "" and err.count("\n") == 1 and err.startswith("error: ")
    return err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "needs one ANALYSIS of responses, gradients"),
        (["lesions", "--workdir=x"], "unknown analysis 'lesions'; did you mean lesion or"),
        (["lesion"], "needs --workdir=DIR[,DIR...]"),
        (["lesion", "--workdir=/nonexistent/run"], "holds no run"),
        (["lesion", "--draw", "--workdir=/nonexistent/run"], "holds no run"),
        (["lesion", "--workdir=x", "--points=3"], "--points is not for analyze lesion"),
        (["gradients", "--workdir=x", "--seed=3"], "--seed is not for analyze gradients"),
        (["gradients", "--workdir=RUN", "--steps=1,two"], "--steps=1,two must be whole numbers"),
        (["gradients", "--workdir=RUN", "--steps=3"], "between 0 and the run's 2"),
        (["surface", "--workdir=RUN", "--points=4"], "points=4 must be odd"),
        (["surface", "--workdir=RUN", "--span=0"], "span=0.0 must be above 0"),
        (["responses", "--workdir=RUN", "--split=all"], "unknown split 'all'"),
        (["cost"], "needs --out"),
        (["cost", "--out=x", "--workdir=RUN"], "--workdir is not for analyze cost"),
        (["cost", "--out=x", "--draw"], "--draw is not for analyze cost"),
        (["cost", "--out=x", "--data_dir=x"], "--data_dir is not for analyze cost"),
        (["lesion", "--workdir=RUN", "--data_dirs=x"], "data_dirs"),
    ],
)
def test_mistakes(capsys, run, arguments, message):
    assert message in fails(capsys, *[a.replace("RUN", str(run)) for a in arguments])


def test_a_run_that_is_not_there_is_noticed_before_the_first_is_analysed(capsys, run, tmp_path):
    (run / "lesion.json").unlink(missing_ok=True)
    assert "holds no run" in fails(capsys, "lesion", f"--workdir={run},{tmp_path}")
    assert not (run / "lesion.json").exists()


def test_a_run_without_checkpoint(capsys, tmp_path, tiny_config):
    RunFolder(tmp_path).open(tiny_config())
    assert "no checkpoint yet" in fails(capsys, "lesion", f"--workdir={tmp_path}")


def test_lines_of_a_log(monkeypatch):
    """A line when ten seconds are over and at the end; the time left goes by what was done here."""
    clock = iter([0.0, 4.0, 12.0, 13.0, 14.0])
    monkeypatch.setattr(progress_bar_module.time, "monotonic", lambda: next(clock))
    stream = io.StringIO()
    with progress_bar("surface run", stream) as report:
        for done in (7, 8, 9, 10):
            report(done, 10)
    assert stream.getvalue() == "surface run: 8/10  12 s left\nsurface run: 10/10  0 s left\n"


def test_a_bar_in_a_terminal():
    stream = io.StringIO()
    stream.isatty = lambda: True
    with progress_bar("surface run", stream) as report:
        report(3, 3)
    assert "surface run" in stream.getvalue() and "3/3" in stream.getvalue()
