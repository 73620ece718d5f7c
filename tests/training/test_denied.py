"""Of several processes, one that is denied its data alone ends all, each with one line and status 2."""

import subprocess
import time

import numpy as np
import pytest
from PIL import Image

from tests.training.processes import start, wait_for_step

#: A process of its own view of the file system, as on a machine of its own.
ALONE = ["unshare", "-m"]

needs_root = pytest.mark.skipif(
    subprocess.run([*ALONE, "true"], capture_output=True).returncode != 0, reason="another view of files needs root"
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder, rng = tmp_path_factory.mktemp("denied"), np.random.default_rng(0)
    for name in "ab":
        (folder / "set" / name).mkdir(parents=True)
        for number in range(40):
            pixels = rng.integers(256, size=(8, 8, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / "set" / name / f"{number}.png")
    return folder


def train(folder, name, through):
    """Far longer than a test."""
    fields = {
        "data.name": "image_folder", "data.folder": folder / "set", "data.image_size": 8, "data.held_out_share": 0.2,
        "data.normalization": "imagenet", "data.eval_shorter_side": 8, "data.shorter_side": "(8,10)",
        "steps": 10**5, "checkpoint_every": 20, "eval_every": 100,
    }  # fmt: skip
    return start("train", folder / name, 2, folder / "cache", through={1: through}, **fields)


def assert_all_end(job, line, seconds):
    """Both with status 2 and one line at the end, of which one says `line` and the other what it is of."""
    ended = job.wait(seconds)
    said = [[line for line in e.output.splitlines() if not line.startswith(("[Gloo]", "process "))] for e in ended]
    assert [e.status for e in ended] == [2, 2], said
    assert [sum(line.startswith("error: ") for line in lines) for lines in said] == [1, 1], said
    assert said[1][-1].startswith("error: ") and line in said[1][-1], said
    assert "process" in said[0][-1], said


@needs_root
def test_at_the_start(folder):
    hidden = [*ALONE, "sh", "-c", f'mount -t tmpfs none {folder}/set && exec "$@"', "sh"]
    assert_all_end(train(folder, "start", hidden), "has no class folders", 120)


@pytest.mark.long
@needs_root
def test_in_the_middle(folder):
    job = train(folder, "middle", ALONE)
    wait_for_step(job, folder / "middle", 4)
    inside = ["nsenter", "-t", str(job.processes[1].pid), "-m"]
    subprocess.run([*inside, "mount", "-t", "tmpfs", "none", folder / "set"], check=True)
    began = time.monotonic()
    assert_all_end(job, "images in a row", 120)
    assert time.monotonic() - began < 60
