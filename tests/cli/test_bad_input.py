"""Mistakes on the command line end in one line and status 2, with nothing written."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from resnet_jax.__main__ import main

ROOT = Path(__file__).parents[2]
DIGITS = f"--config={ROOT}/configs/digits.py:resnet20"
CIFAR = f"--config={ROOT}/configs/cifar10.py:resnet20"


def fails(capsys, *arguments):
    """The one line on stderr of a command that ends with status 2."""
    assert main(arguments) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.count("\n") == 1 and err.startswith("error: ")
    return err


@pytest.mark.parametrize(
    ("config", "extra", "message"),
    [
        (f"--config={ROOT}/configs/digits.py:resnet21", [], "unknown CIFAR net 'resnet21'; did you mean"),
        (f"--config={ROOT}/configs/digits.py:resnet50", [], "unknown CIFAR net 'resnet50'"),
        (f"--config={ROOT}/configs/none.py:resnet20", [], "no config file"),
        (f"--config={ROOT}/configs/none.py", ["--config.steps=5"], "no config file"),
        (DIGITS, ["--config.stepz=5"], "unknown config field 'stepz'; did you mean steps"),
        (DIGITS, ["--config.foo.bar=5"], "unknown config field 'foo.bar'"),
        (DIGITS, ["--config.model.shortcutt=A"], "unknown config field 'model.shortcutt'; did you mean model.shortcut"),
        (DIGITS, ["--config.model=resnet50"], "config.model is a group of fields, of which each is set: model.name,"),
        (DIGITS, ["--config.data=7"], "config.data is a group of fields"),
        (DIGITS, ["--config.steps=many"], "many"),
        (DIGITS, ["--config.steps=0"], "config.steps=0 must be 1 or more"),
        (DIGITS, ["--config.steps=-3"], "config.steps=-3 must be 1 or more"),
        (DIGITS, ["--config.data.name=mnist"], "unknown dataset 'mnist'"),
        (DIGITS, ["--config.model.name=cifar_resnet21"], "unknown net 'cifar_resnet21'"),
        (DIGITS, ["--config.model.shortcut=E"], "unknown shortcut 'E'"),
        (DIGITS, ["--config.model.shortcut=none", "--config.model.zero_init_last=True"], "zero_init_last"),
        (DIGITS, ["--config.model.stage_sizes=(1,1)"], "one entry for each stage"),
        (DIGITS, ["--config.batch_size=12"], "config.batch_size=12 is not divisible by the 8 devices"),
        (DIGITS, ["--workdirs=x"], "workdirs"),
        (DIGITS, ["extra"], "no argument 'extra'"),
        (CIFAR, ["--config.data.data_dir=EMPTY"], "holds no cifar10"),
        (CIFAR, ["--config.data.data_dir=MISSING"], "is not a folder"),
    ],
)
def test_train(capsys, tmp_path, config, extra, message):
    (tmp_path / "empty").mkdir()
    extra = [e.replace("EMPTY", str(tmp_path / "empty")).replace("MISSING", str(tmp_path / "no")) for e in extra]
    workdir = tmp_path / "run"
    assert message in fails(capsys, "train", config, f"--workdir={workdir}", *extra)
    assert not workdir.exists()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("raise RuntimeError('boom')", "the config file fails: RuntimeError: boom"),
        ("def get_config(net):\n    return 3", "returns no ConfigDict, but int"),
        ("def get_config(net):\n    return 1 / 0", "the config file fails: ZeroDivisionError"),
        ("def get_config(:", "invalid syntax"),
        ("raise ValueError", "the config file fails: ValueError\n"),
        ("def get_config(net):\n    return {}['a']", "the config file fails: KeyError: 'a'"),
        ("def get_config(net):\n    raise ValueError('a: b\\nc: d')", "the config file fails: ValueError: a: b c: d"),
        ("def get_config(net):\n    open('/no/file')", "the config file fails: FileNotFoundError: [Errno 2]"),
        ("def get_config(net):\n    pass", "returns no ConfigDict, but None"),
    ],
)
def test_a_config_file_of_ones_own(capsys, tmp_path, text, message):
    (tmp_path / "own.py").write_text(text)
    assert message in fails(capsys, "train", f"--config={tmp_path}/own.py:net", f"--workdir={tmp_path}/run")


def test_a_platform_that_is_not_there():
    command = [sys.executable, "-m", "resnet_jax", "train", DIGITS, "--workdir=/dev/null/run"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "JAX_PLATFORMS": "abacus"}
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, env=environment)
    assert done.returncode == 2 and "Traceback" not in done.stderr
    assert done.stderr.startswith("error: Unable to initialize backend 'abacus'")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["trane"], "unknown verb 'trane'; did you mean train"),
        (["train"], "needs --config and --workdir"),
        (["train", DIGITS], "needs --config and --workdir"),
        (["evaluate"], "needs --workdir"),
        (["evaluate", "--workdir=/nonexistent/run"], "holds no run"),
        (["summary"], "needs one NAME"),
        (["summary", "resnet5"], "unknown net 'resnet5'; did you mean"),
        (["summary", "resnet50", "--image_size=0"], "--image_size=0 must be 1 or more"),
        (["summary", "resnet20"], "did you mean cifar_resnet20?"),
        (["summary", "vgg16", "--image_size=8"], "too small for VGG"),
    ],
)
def test_other_verbs(capsys, arguments, message):
    assert message in fails(capsys, *arguments)


def test_no_network_and_no_data(capsys, tmp_path, monkeypatch):
    """Said at once."""
    import socket

    def unreachable(*_):
        raise socket.gaierror("Name or service not known")

    for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(socket, "getaddrinfo", unreachable)
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path / "tfds"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    message = fails(capsys, "train", CIFAR, f"--workdir={tmp_path / 'run'}")
    assert (
        "cannot download cifar10" in message
        and "Name or service not known" in message
        and "--config.data.data_dir=DIR" in message
    )
    assert not (tmp_path / "run").exists()


def test_evaluate_a_run_without_checkpoint(capsys, tmp_path, tiny_config):
    from resnet_jax.training.run_folder import RunFolder

    RunFolder(tmp_path).open(tiny_config())
    assert "no checkpoint yet" in fails(capsys, "evaluate", f"--workdir={tmp_path}")


def test_unwritable_workdir_from_the_shell():
    """The whole process, as a user runs it: status 2, one line, no traceback, no noise of libraries."""
    command = [sys.executable, "-m", "resnet_jax", "train", DIGITS, "--workdir=/dev/null/run", "--config.steps=1"]
    done = subprocess.run(
        command, capture_output=True, text=True, cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)}
    )
    assert done.returncode == 2
    assert done.stderr.strip().splitlines()[-1].startswith("error: cannot write to workdir /dev/null/run")
    assert "Traceback" not in done.stderr
