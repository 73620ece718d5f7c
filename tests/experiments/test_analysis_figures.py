"""Figures that look into nets: their nets and analyses are there; they are run, measured and drawn by their names."""

import dataclasses
import importlib
import json

import pytest
from PIL import Image

from experiments import registry
from experiments.__main__ import main
from experiments.experiment import ANALYSES, row_config
from experiments.net_figures import EXPERIMENTS
from experiments.registry import load
from resnet_jax.cli import analyze
from resnet_jax.report.analysis.figures import FIGURES, is_measured
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
