"""The commands' output, as scripts and people read it."""

import json
import subprocess
import sys
import time

import pytest

from resnet_jax.__main__ import VERBS, main
from resnet_jax.models.registry import list_models


def test_help_is_answered_without_jax():
    """Help in half a second: the measure is what was imported, since a clock on a busy machine tells little."""
    code = "import sys, resnet_jax.__main__ as m; m.main(['--help']); print('jax' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "False"
    assert all(verb in done.stdout for verb in VERBS)


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_has_help(capsys, verb):
    with pytest.raises(SystemExit) as status:
        main([verb, "--help"])
    assert status.value.code == 0
    assert f"usage: python -m resnet_jax {verb}" in capsys.readouterr().out


def test_help_says_the_defaults(capsys):
    with pytest.raises(SystemExit):
        main(["predict", "--help"])
    lines = {line.partition(":")[0].strip(): line for line in capsys.readouterr().out.splitlines()}
    assert lines["--top"].endswith(" (5)") and lines["--least"].endswith(" (0.5)")
    assert not lines["--json"].endswith(")") and "None" not in lines["--embed"]


def test_summary_json(capsys):
    assert main(["summary", "resnet50", "--json"]) == 0
    found = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert (found["name"], found["depth"], found["params"]) == ("resnet50", 50, 25_557_032)
    assert found["flops"] == pytest.approx(3.8e9, rel=0.02)


def test_summary_at_another_size(capsys):
    main(["summary", "cifar_resnet20", "--json", "--image_size=64"])
    large = json.loads(capsys.readouterr().out)
    main(["summary", "--json", "cifar_resnet20"])
    small = json.loads(capsys.readouterr().out)
    assert large["params"] == small["params"]
    head = 64 * 10
    assert large["flops"] - head == 4 * (small["flops"] - head)


def test_summary_table_names_layers(capsys):
    assert main(["summary", "cifar_resnet20"]) == 0
    out = capsys.readouterr().out
    assert "stage2/block1/conv1" in out and "16x16x32" in out
    assert "20 weighted layers, 269,722 parameters" in out


def test_list(capsys):
    assert main(["summary", "--list"]) == 0
    assert capsys.readouterr().out.split() == list_models()


def test_train_and_evaluate(capsys, tmp_path):
    """`--config.FIELD=VALUE` reaches the run; evaluate's last line is JSON with the run's test error."""
    workdir = f"--workdir={tmp_path / 'run'}"
    fields = {"steps": 4, "batch_size": 16, "seed": 7, "model.stage_sizes": "(1,1,1)", "model.widths": "(4,4,4)"}
    overrides = [f"--config.{k}={v}" for k, v in fields.items()]
    began = time.monotonic()
    assert main(["train", "--config=configs/digits.py:plain20", workdir, *overrides]) == 0
    assert time.monotonic() - began < 120
    assert "cifar_plain20 on digits, 4 steps, seed 7" in capsys.readouterr().out
    result = json.loads((tmp_path / "run/result.json").read_text())
    assert (result["seed"], result["steps"], result["model"]) == (7, 4, "cifar_plain20")
    assert main(["evaluate", workdir, "--json"]) == 0
    assert json.loads(capsys.readouterr().out.splitlines()[-1])["test_error"] == result["metrics"]["test_error"]
    assert main(["evaluate", workdir]) == 0
    assert f"single view error {result['metrics']['test_error']:.2f} %" in capsys.readouterr().out
