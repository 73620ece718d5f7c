"""Every command of README.md, CONTRIBUTING.md and docs/ is understood; those that take seconds are run."""

import re

import pytest

from experiments import registry
from tests.documentation.pages import ROOT, commands, commands_in_text
from tests.documentation.parsing import check
from tests.documentation.terminals import in_pipe, in_terminal

EVERY, IN_TEXT = commands(), commands_in_text()

#: Commands that are run as they stand. `make docs-commands` runs the others, shortened.
QUICK = ("python -m resnet_jax summary --list", ".venv/bin/python -m experiments ")

#: A table of the tutorial, which is there once the reader has written its file.
TUTORIAL = "mine.widths"


def test_all_pages_have_their_commands():
    places = [command.place for command in EVERY]
    assert len(EVERY) > 60 and len(places) == len(set(places))
    assert len(IN_TEXT) > 15
    assert {"README.md", "docs/weights.md", "docs/tutorials/first_run.md"} <= {p.partition(":")[0] for p in places}


@pytest.mark.parametrize("command", [*EVERY, *IN_TEXT], ids=lambda command: command.place)
def test_is_understood(command, tmp_path, monkeypatch):
    """It ends in no mistake of flags, names or fields; nothing is carried out."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.py").write_text("from configs.cifar10 import get_config\n")  # what the page has the reader write
    for folder in re.findall(r"--runs=(\S+)", command.text):
        (tmp_path / folder).mkdir(parents=True)
    monkeypatch.setattr(registry, "NAMES", (*registry.NAMES, TUTORIAL))
    real = registry.load
    monkeypatch.setattr(registry, "load", lambda name: real("he2015.table6" if name == TUTORIAL else name))
    check(command, monkeypatch)


@pytest.mark.parametrize("run", [in_pipe, in_terminal])
@pytest.mark.parametrize("text", QUICK)
def test_is_run(text, run, tmp_path):
    """In a pipe and in a terminal of 80 columns: no warning, nothing cut, no line that the terminal would break."""
    (command,) = {command.text.partition("#")[0].strip() for command in EVERY if command.text.startswith(text)} & {
        text.strip()
    }
    python = re.sub(r"^(\.venv/bin/)?python", str(ROOT / ".venv/bin/python"), command)
    done = run(python, tmp_path, {"PYTHONPATH": str(ROOT), "XLA_FLAGS": ""}, 120)
    assert done.status == 0, done.printed
    assert "Traceback" not in done.printed and "arning" not in done.printed and "…" not in done.printed
    plain = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", done.printed).replace("\r", "")
    assert max(map(len, plain.splitlines())) <= 80
