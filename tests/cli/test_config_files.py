"""Config files: the project's own from any directory and as installed, and those of users."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from resnet_jax.__main__ import main

ROOT = Path(__file__).parents[2]
TINY = ["--config.model.stage_sizes=(1,1,1)", "--config.model.widths=(4,4,4)", "--config.steps=2",
        "--config.batch_size=16"]  # fmt: skip

OWN = """
from configs.digits import get_config as digits
from beside import STEPS

def get_config(net="plain20"):
    config = digits(net)
    config.steps = STEPS
    return config
"""


@pytest.mark.parametrize("name", ["digits:plain20", "digits.py:plain20", "configs/digits.py:plain20"])
def test_our_own_by_name_from_any_directory(tmp_path, monkeypatch, name, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["train", f"--config={name}", "--workdir=run", "--config.steps=0"]) == 2
    assert "config.steps=0 must be 1 or more" in capsys.readouterr().err


@pytest.mark.parametrize("home", [False, True])
def test_of_a_user_by_any_path_with_files_beside_it(tmp_path, monkeypatch, home, capsys):
    folder = tmp_path / "a folder" / "\N{LATIN SMALL LETTER E WITH ACUTE}"
    folder.mkdir(parents=True)
    (folder / "own.py").write_text(OWN)
    (folder / "beside.py").write_text("STEPS = -7")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(folder))
    monkeypatch.delitem(sys.modules, "beside", raising=False)
    path = "~/own.py" if home else str((folder / "own.py").relative_to(tmp_path))
    assert main(["train", "--config", f"{path}:plain20", "--workdir=run"]) == 2
    assert "config.steps=-7 must be 1 or more" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("x = 1", "the config file has no function get_config"),
        ("def get_config():\n    return 1", "the config file fails: TypeError: get_config() takes 0 positional"),
        ("def get_config(net):\n    return {}", "returns no ConfigDict, but dict"),
        ("import nothing_like_it", "No module named 'nothing_like_it'"),
    ],
)
def test_what_is_no_config_is_said_in_one_line(tmp_path, monkeypatch, capsys, text, message):
    monkeypatch.delitem(sys.modules, "config_config", raising=False)  # of a config file that this process has read
    (tmp_path / "own.py").write_text(text)
    assert main(["train", f"--config={tmp_path}/own.py:net", f"--workdir={tmp_path}/run"]) == 2
    err = capsys.readouterr().err
    assert message in err and err.count("\n") == 1 and "Traceback" not in err


@pytest.mark.parametrize(
    ("arguments", "meant"),
    [
        (["--steps=5"], "--config.steps"),
        (["--data.data_dir=x"], "--config.data.data_dir"),
        (["--learning_rate=0.1"], "--config.optimizer.learning_rate"),
    ],
)
def test_fields_without_config_are_suggested(tmp_path, capsys, arguments, meant):
    assert main(["train", "--config=digits:plain20", f"--workdir={tmp_path}/run", *arguments]) == 2
    assert f"did you mean {meant}?" in capsys.readouterr().err


def test_an_unknown_name_has_its_nearest(capsys):
    assert main(["train", "--config=cifr10:resnet20", "--workdir=x"]) == 2
    assert "did you mean cifar10" in capsys.readouterr().err


def test_the_installed_package_carries_the_configs(tmp_path):
    """As `pip install .` lays it out, away from the checkout."""
    pytest.importorskip("setuptools")
    source, site = tmp_path / "source", tmp_path / "site"
    source.mkdir()
    for name in ("setup.py", "resnet_jax", "configs", "requirements.txt", "README.md"):
        (source / name).symlink_to(ROOT / name)
    about = (ROOT / "pyproject.toml").read_text()  # an old setuptools cannot read the license
    (source / "pyproject.toml").write_text(re.sub(r"(?m)^license.*\n", "", about))
    subprocess.run([sys.executable, "setup.py", "-q", "build_py", "-d", str(site)], cwd=source, check=True)
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "own.py").write_text(OWN.replace("from beside import STEPS", "STEPS = 2"))
    env = {**os.environ, "PYTHONPATH": str(site)}
    code = "import resnet_jax.__main__ as m, sys; print(m.__file__); sys.exit(m.main(sys.argv[1:]))"
    command = [sys.executable, "-c", code, "train", "--config=own.py:plain20", "--workdir=run", *TINY]
    done = subprocess.run(command, cwd=elsewhere, env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(str(site))
    assert json.loads((elsewhere / "run/result.json").read_text())["model"] == "cifar_plain20"
