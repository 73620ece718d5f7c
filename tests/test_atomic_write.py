"""Whole or not there: what is left of a file when its writer dies, and what is no JSON object."""

import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest

from resnet_jax.atomic_write import atomic_write, read_json_object
from resnet_jax.errors import UserError

ROOT = Path(__file__).parents[1]


@pytest.mark.parametrize("content", ["zwölf\n", b"\x00\xff\r\n"])
def test_what_is_written_is_there(content, tmp_path):
    path = tmp_path / "file"
    atomic_write(path, "before")
    atomic_write(path, content)
    assert path.read_bytes() == (content.encode() if isinstance(content, str) else content)
    assert [entry.name for entry in tmp_path.iterdir()] == ["file"]


def test_a_writer_that_dies_leaves_the_old_file(tmp_path, monkeypatch):
    """With all bytes handed to the system, which has not yet taken them in."""
    path = tmp_path / "file"
    atomic_write(path, "old")

    def full(descriptor):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        atomic_write(path, "new")
    assert path.read_text() == "old" and [entry.name for entry in tmp_path.iterdir()] == ["file"]


def test_two_processes_that_write_one_file(tmp_path, monkeypatch):
    """The other begins and ends while this one's bytes go to the disk."""
    path, other = tmp_path / "file", "from resnet_jax.atomic_write import *; atomic_write(Path({!r}), 'other')"
    fsync = os.fsync

    def meanwhile(descriptor):
        monkeypatch.setattr(os, "fsync", fsync)
        subprocess.run([sys.executable, "-c", other.format(str(path))], check=True, cwd=ROOT)
        assert path.read_text() == "other"
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", meanwhile)
    atomic_write(path, "ours")
    assert path.read_text() == "ours" and [entry.name for entry in tmp_path.iterdir()] == ["file"]


def test_what_killed_processes_left_is_removed(tmp_path):
    dead, alive, others = (tmp_path / f"{name}.host-7.partial" for name in ("file[1]", "file[1].json", "file1"))
    for path in (dead, alive, others):
        path.touch()
    for path in (dead, others):
        os.utime(path, (0, 0))
    atomic_write(tmp_path / "file[1]", "new")
    assert {entry.name for entry in tmp_path.iterdir()} == {"file[1]", alive.name, others.name}


def test_a_pipe_and_a_link_stay(tmp_path):
    """A rename would put a file in their place: /dev/null would be gone for the whole machine."""
    pipe, link = tmp_path / "pipe", tmp_path / "link"
    os.mkfifo(pipe)
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    atomic_write(pipe, "bytes")
    assert pipe.is_fifo() and os.read(reader, 100) == b"bytes"
    os.close(reader)
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder/file").write_text("old")
    link.symlink_to("folder/file")
    atomic_write(link, "new")
    assert link.is_symlink() and (tmp_path / "folder/file").read_text() == "new"
    assert {entry.name for entry in tmp_path.rglob("*")} == {"pipe", "link", "folder", "file"}


@pytest.mark.parametrize(("text", "message"), [("{", "cannot read"), ("[1]", "holds no JSON object")])
def test_what_is_no_object_is_refused(text, message, tmp_path):
    path = tmp_path / "file.json"
    with pytest.raises(FileNotFoundError):
        read_json_object(path)
    atomic_write(path, text)
    with pytest.raises(UserError, match=message):
        read_json_object(path)
    atomic_write(path, '{"a": 1}')
    assert read_json_object(path) == {"a": 1}
