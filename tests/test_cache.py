"""Where compiled programs are kept between commands."""

import os
import subprocess
import sys

import pytest

from resnet_jax import cache
from resnet_jax.cli import run_command


@pytest.fixture
def bare(monkeypatch, tmp_path):
    """A user who has set nothing, with a home of his own."""
    for name in (cache.FOLDER, cache.MOST_BYTES, cache.LEAST_SECONDS, "XDG_CACHE_HOME"):
        monkeypatch.setenv(name, "")  # so that monkeypatch takes away what is set in the meantime
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setattr(cache.importlib.util, "find_spec", lambda name: name)
    return tmp_path


def test_the_folder_is_the_users_and_bounded(bare, monkeypatch):
    assert run_command.run_command(lambda: None) == 0
    assert os.environ[cache.FOLDER].startswith(f"{bare}/.cache/resnet_jax/") and os.path.isdir(os.environ[cache.FOLDER])
    assert 2**28 <= int(os.environ[cache.MOST_BYTES]) <= 2**33
    monkeypatch.delenv(cache.FOLDER)
    monkeypatch.setenv("XDG_CACHE_HOME", f"{bare}/other")
    cache.use_compilation_cache()
    assert os.environ[cache.FOLDER].startswith(f"{bare}/other/resnet_jax/")


@pytest.mark.parametrize("value", ["", "/elsewhere"])
def test_the_users_own_choice_stays(bare, monkeypatch, value):
    monkeypatch.setenv(cache.FOLDER, value)
    cache.use_compilation_cache()
    assert os.environ[cache.FOLDER] == value and not (bare / ".cache").exists()


def test_a_folder_that_cannot_be_written_is_none(bare):
    (bare / ".cache").write_text("a file")
    assert run_command.run_command(lambda: None) == 0
    assert cache.FOLDER not in os.environ


def test_another_processor_has_another_folder(bare, monkeypatch):
    one = cache.default_folder()
    assert one == cache.default_folder()
    monkeypatch.setattr(cache.Path, "read_text", lambda path: "model name : another\nflags : fpu\n")
    assert cache.default_folder() != one


def test_jax_reads_it(bare):
    """In a fresh process, a program is written there, and found again without a word on stderr."""
    code = (
        "from resnet_jax.cli.run_command import run_command\n"
        "def command():\n"
        "    import jax\n"
        "    print(jax.jit(lambda x: x @ x + 1)(jax.numpy.ones((3, 3))).sum())\n"
        "run_command(command)"
    )
    environment = dict(os.environ)  # a program so small is among what is kept
    environment["PYTHONPATH"] = os.pathsep.join(sys.path)
    for _ in range(2):
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment)
        assert (done.stdout, done.stderr) == ("36.0\n", "")
    assert list(bare.glob(".cache/resnet_jax/*/*-cache"))
