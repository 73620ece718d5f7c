"""Outputs that cannot be written, and terminals that cannot show everything."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
COMMANDS = ("-m resnet_jax summary --list", "-m resnet_jax --help", "-m resnet_jax train --help",
            "-m experiments --help", "-m experiments he2015.table6 run --help")  # fmt: skip


def shell(text, **env):
    environment = {**os.environ, "PYTHONPATH": str(ROOT), **env}
    return subprocess.run(["bash", "-c", text], capture_output=True, text=True, cwd=ROOT, env=environment)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="a full disk needs Linux's /dev/full")
@pytest.mark.parametrize("command", COMMANDS)
def test_a_full_disk_is_one_line(command):
    done = shell(f"{sys.executable} {command} > /dev/full")
    assert (done.returncode, done.stderr) == (2, "error: cannot write the output: No space left on device\n")


@pytest.mark.parametrize("command", COMMANDS[:1])
def test_a_reader_that_is_gone_ends_it_in_silence(command):
    """With the status of a shell's other programs, 128 + SIGPIPE."""
    done = shell(f"{{ sleep 0.1; {sys.executable} {command}; echo status $? >&2; }} | true")
    assert done.stderr == "status 141\n"


@pytest.mark.parametrize("words", ["summary --list", "summary --help", "--help"])
def test_no_output_at_all_is_fine(words):
    done = shell(f"{sys.executable} -m resnet_jax {words} >&-")
    assert (done.returncode, done.stderr) == (0, "")


def test_a_terminal_of_few_letters():
    """What it cannot show is escaped, and nothing ends in an error."""
    done = shell(f"{sys.executable} -m experiments lst 'he2015.tablé6'", LC_ALL="C", PYTHONUTF8="0",
                 PYTHONCOERCECLOCALE="0", PYTHONIOENCODING="ascii")  # fmt: skip
    assert done.returncode == 2 and done.stderr.startswith("error: ") and "Traceback" not in done.stderr
    listed = shell(f"{sys.executable} -m resnet_jax summary cifar_resnet20", PYTHONUTF8="0", PYTHONIOENCODING="ascii")
    assert listed.returncode == 0 and listed.stdout.isascii() and "269,722" in listed.stdout


def test_help_imports_no_jax():
    """Every help of experiments is there at once; the measure is what was imported, as clocks tell little here."""
    code = (
        "import sys\nfrom experiments.__main__ import main\n"
        "for words in sys.argv[1:]:\n"
        "    try: main(words.split())\n"
        "    except SystemExit as status: assert not status.code\n"
        "    heavy = {'jax', 'rich', 'matplotlib', 'numpy', 'ml_collections'} & set(sys.modules)\n"
        "    assert not heavy, (words, heavy)\n"
    )
    helps = [f"{words} --help" for words in (
        "list", "ablation", "readme", "publish", "campaign", "he2015.table6", "he2015.table6 run",
        "he2016 render", "gradients.digits run", "",
    )]  # fmt: skip
    done = subprocess.run([sys.executable, "-c", code, *helps], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("usage:") == len(helps) - 1
