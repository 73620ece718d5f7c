"""Figures that look into nets: their nets and analyses are there; they are run, measured and drawn by their names."""

import contextlib
import dataclasses
import fcntl
import importlib
import json
import time

import pytest
from PIL import Image

from experiments import registry
from experiments.__main__ import main
from experiments.experiment import ANALYSES, row_config
from experiments.finished import analyse_finished
from experiments.net_figures import EXPERIMENTS
from experiments.plan import make_plan
from experiments.registry import load
from experiments.train_run import LOCK
from resnet_jax.cli import analyze
from resnet_jax.errors import UserError
from resnet_jax.report.analysis.figures import FIGURES, is_measured
from tests.experiments.fakes import write_run
from tests.experiments.tiny import tiny_row

#: Options of the analyses that take seconds.
QUICK = {"surface": {"points": 3, "images": 16, "dimensions": 1}, "lesion": {"repeats": 1}, "gradients": {"steps": [0]}}


@pytest.mark.parametrize("name", registry.INSIDE)
def test_nets_and_analysis_are_there(name):
    figure = load(name)
    assert figure.name == name and figure.form in ANALYSES and figure.form in analyze.ANALYSES
    run = getattr(importlib.import_module(f"resnet_jax.analysis.{figure.form}"), f"run_{figure.form}")
    assert set(figure.options) <= set(run.__annotations__)
    for row in figure.rows:
        assert row_config(row).data.name == ("digits" if name.endswith(".digits") else "cifar10")


def test_every_figure_is_listed_once():
    assert tuple(EXPERIMENTS) == registry.INSIDE and not set(registry.INSIDE) & set(registry.NAMES)
    assert set(FIGURES) == set(ANALYSES)


def test_list_has_them(capsys, tmp_path, monkeypatch):
    monkeypatch.setenv("COLUMNS", "300")
    assert main([f"--runs={tmp_path}"]) == 0
    printed = capsys.readouterr().out
    for name in registry.INSIDE:
        line = next(line for line in printed.splitlines() if line.startswith(f"{name} "))
        assert f"{load(name).title} (plain-" in line and "ResNet-56" in line
        assert f"0 of {len(load(name).rows)} runs; {load(name).form} measured in 0" in line


@pytest.mark.long
@pytest.mark.parametrize("form", ANALYSES)
def test_run_measures_and_render_draws(form, tmp_path, listed, in_process, capsys):
    rows = (tiny_row("plain", "digits:plain20", steps=2), tiny_row("residual", steps=2))
    name = "gradients.tiny"
    listed(
        dataclasses.replace(
            EXPERIMENTS["gradients.digits"], name=name, title="Tiny", rows=rows, form=form, options=QUICK.get(form, {})
        )
    )
    runs, out = tmp_path / "runs", tmp_path / "out"
    runs.mkdir()
    assert main([name, "render", f"--runs={runs}", f"--out={out}"]) == 0
    empty = (out / f"{name}.png").read_bytes()
    assert main([name, "run", f"--out={runs}", "--rows=plain"]) == 0
    assert main([name, "run", f"--out={runs}"]) == 0
    assert len(in_process.started) == 2
    folders = list(runs.glob("*/result.json"))
    assert len(folders) == 2 and all(is_measured(path.parent, form) for path in folders)
    written = [(path.parent / FIGURES[form][0]).stat().st_mtime_ns for path in folders]
    assert main([name, "run", f"--out={runs}"]) == 0  # what is there is left alone
    assert written == [(path.parent / FIGURES[form][0]).stat().st_mtime_ns for path in folders]

    capsys.readouterr()
    assert main([name, "render", f"--runs={runs}", f"--out={out}"]) == 0
    assert f"2 of 2 runs; {form} measured in 2" in capsys.readouterr().out
    assert (out / f"{name}.png").read_bytes() != empty and Image.open(out / f"{name}.png").size[0] > 1000
    page = (out / f"{name}.html").read_text()
    assert page.count('<div class="scroll picture">') == 1


def test_an_unfinished_surface_is_not_measured(tmp_path):
    assert not is_measured(tmp_path, "surface")
    (tmp_path / "surface.json").write_text(json.dumps({"y": [0, 1], "loss": [[1.0]]}))
    assert not is_measured(tmp_path, "surface")
    (tmp_path / "surface.json").write_text(json.dumps({"y": [0, 1], "loss": [[1.0], [2.0]]}))
    assert is_measured(tmp_path, "surface")


@pytest.mark.parametrize(
    ("form", "found", "measured"),
    [
        ("lesion", {"settings": {"step": 540}}, True),
        ("lesion", {"settings": {"step": 270}}, False),
        ("surface", {"settings": {"step": 270}, "y": [0], "loss": [[1.0]]}, False),
        ("surface", {"settings": {"step": 540, "points": 3}, "y": [0], "loss": [[1.0]]}, True),
        ("responses", {"settings": {"step": 540, "split": "test"}, "responses": []}, True),
        ("responses", {"settings": {"step": 540, "split": "train"}, "responses": []}, False),
        ("responses", {"settings": {"step": 270, "split": "test"}, "responses": []}, False),
        ("responses", [{"layer": "stem/bn", "std": 1.0}], True),  # of an early version, which did not say it
    ],
)
def test_an_analysis_counts_for_the_weights_and_images_that_it_is_of(tmp_path, form, found, measured):
    config = row_config(load("he2015.figure7.digits").rows[0])
    assert config.steps == 540
    done = write_run(tmp_path, config, 5.0)
    going_on = write_run(tmp_path / "going on", config, 5.0, finished=False)
    for folder in (done, going_on):
        (folder / FIGURES[form][0]).write_text(json.dumps(found))
    assert is_measured(done, form) == measured
    assert is_measured(going_on, form) == isinstance(found, list)


@pytest.fixture
def finished(tmp_path):
    """Two finished runs of a figure, which were not analysed, and the command that analyses them."""
    plan = make_plan([load("he2015.figure7.digits")], tmp_path, rows="plain20,resnet20")
    folders = [write_run(tmp_path, trial.config, 5.0) for trial in plan.trials]
    command = ["he2015.figure7.digits", "run", f"--out={tmp_path}", "--rows=plain20,resnet20"]
    return plan, folders, command


def test_a_failure_in_one_run_stops_no_other(finished, monkeypatch, capsys):
    """Each is analysed with the lock of its folder held, so that no two launchers do it at once."""
    _, (plain, residual), command = finished

    def fake(name, workdirs, data_dir, options):
        with (workdirs[0] / LOCK).open("a") as file, pytest.raises(BlockingIOError):
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if workdirs == [plain]:
            raise UserError("it has no checkpoint")
        (workdirs[0] / "responses.json").write_text("[]")

    monkeypatch.setattr(analyze, "analyse", fake)
    assert main(command) == 1
    assert "plain20 seed 0, responses failed:\nit has no checkpoint" in capsys.readouterr().err
    assert is_measured(residual, "responses")


def test_what_another_launcher_analysed_meanwhile_is_not_done_again(finished, monkeypatch):
    _, folders, command = finished

    @contextlib.contextmanager
    def waited(folder):
        (folder / "responses.json").write_text("[]")
        yield

    monkeypatch.setattr("experiments.finished.locked", waited)
    monkeypatch.setattr(analyze, "analyse", lambda *_: pytest.fail("analysed again"))
    assert main(command) == 0 and all(is_measured(folder, "responses") for folder in folders)


def test_no_analysis_begins_when_the_time_is_over(finished, monkeypatch, capsys):
    plan, _, _ = finished
    monkeypatch.setattr(analyze, "analyse", lambda *_: pytest.fail("analysed"))
    assert analyse_finished(plan, plan.statuses(), time.monotonic()) == []
    assert capsys.readouterr().out == "the time is over: responses of 2 runs are left for the next time\n"
