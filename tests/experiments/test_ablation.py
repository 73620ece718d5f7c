"""`make ablation` at a tiny scale: it trains, renders, finds finished runs, carries on killed ones."""

import json

import pytest

from experiments import ablation
from experiments.__main__ import main
from resnet_jax.data.resident import ResidentPipeline
from resnet_jax.training import loop

TWO = [row for row in ablation.ROWS if row.name in ("plain20", "resnet20")]


@pytest.fixture
def tiny_rows(monkeypatch, tiny_config):
    """Two nets of eight layers in the place of the four."""

    def config(net):
        return tiny_config(model__name=f"cifar_{net}")

    monkeypatch.setattr(ablation, "ROWS", TWO)
    monkeypatch.setattr(ablation, "get_config", config)
    monkeypatch.setattr(ablation.run, "__defaults__", (None, TWO))
    monkeypatch.setattr(ablation.runs, "__defaults__", (TWO,))


def test_the_rows_are_the_papers_claim():
    """Two depths, each once without and once with shortcuts."""
    assert [(row.label, row.group) for row in ablation.ROWS] == [
        ("plain-20", "plain"), ("plain-56", "plain"), ("ResNet-20", "residual"), ("ResNet-56", "residual")
    ]  # fmt: skip


def test_command_trains_renders_and_then_only_renders(tiny_rows, tmp_path, capsys, monkeypatch):
    out = tmp_path / "ablation"
    assert main(["ablation", f"--out={out}"]) == 0
    printed = capsys.readouterr().out
    page = (out / "index.html").read_text()
    for row in TWO:
        result = json.loads((out / row.name / "result.json").read_text())
        for text in (printed, page, (out / "table.md").read_text()):
            assert row.label in text and f"{result['metrics']['test_error']:.2f}" in text
    assert (out / "curves.png").read_bytes().startswith(b"\x89PNG")

    # A second call finds the finished runs.
    (out / "index.html").unlink()
    monkeypatch.setattr(loop, "make_trainer", lambda *_: pytest.fail("trained again"))
    assert main(["ablation", f"--out={out}"]) == 0
    assert (out / "index.html").read_text() == page


def test_a_killed_ablation_carries_on(tiny_rows, tmp_path, monkeypatch, capsys):
    out = tmp_path / "ablation"
    steps = []
    inputs = ResidentPipeline.train_inputs

    def dies_in_the_second_net(self, step, *more):
        steps.append(step)
        if len(steps) == 11:
            raise KeyboardInterrupt
        return inputs(self, step, *more)

    monkeypatch.setattr(ResidentPipeline, "train_inputs", dies_in_the_second_net)
    assert main(["ablation", f"--out={out}"]) == 130
    assert "the same command goes on" in capsys.readouterr().err
    assert (out / "plain20/result.json").exists() and not (out / "resnet20/result.json").exists()
    assert main(["ablation", f"--out={out}"]) == 0
    # Six steps of the first net; four of the second before the kill and the rest from its checkpoint after step 4.
    assert steps[6:] == [0, 1, 2, 3, 4, 4, 5]


def test_bad_arguments(tiny_rows, tmp_path, capsys):
    assert main(["ablation", f"--out={tmp_path}", "--steps=0"]) == 2
    assert capsys.readouterr().err == "error: config.steps=0 must be 1 or more\n"
    (tmp_path / "file").write_text("")
    assert main(["ablation", f"--out={tmp_path / 'file'}"]) == 2
    assert "cannot write" in capsys.readouterr().err
    assert main(["publish", f"--source={tmp_path}"]) == 2
    assert "holds no finished run" in capsys.readouterr().err
