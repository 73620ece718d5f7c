"""Too little memory is one line and status 2, and what is whole does not pass for damaged meanwhile."""

import contextlib
import io
import resource
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from resnet_jax.cli.run_command import MISTAKE, run_command
from resnet_jax.data.image_files import decode
from resnet_jax.errors import PLENTY, UserError, check_memory
from resnet_jax.interop.files import read_tensors
from resnet_jax.training.checkpoint import Checkpoints
from tests.training.test_checkpoints import SHARDING


@contextlib.contextmanager
def left(size):
    """Lets this process have so many bytes more, as `ulimit -v` does."""
    before = resource.getrlimit(resource.RLIMIT_AS)
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, before)


def more_than_the_limit():
    with left(0):
        np.empty(2**28)


@pytest.mark.parametrize(
    "command", [lambda: np.empty(2**50), lambda: jnp.zeros((2**45,)).block_until_ready(), more_than_the_limit],
    ids=["NumPy", "XLA", "a limit"],
)  # fmt: skip
def test_is_one_line(command, capsys):
    assert run_command(command, compilation_cache=False) == MISTAKE
    said = capsys.readouterr().err.splitlines()
    assert len(said) == 1 and said[0].startswith("error: not enough memory ("), said


def test_a_whole_image_is_not_damaged():
    """Else it would be left out of training, or count as wrong."""
    file = io.BytesIO()
    Image.new("RGB", (2500, 2500)).save(file, "PNG")
    with left(2**20), pytest.raises(MemoryError):
        decode(file.getvalue())
    assert decode(file.getvalue()).shape == (2500, 2500, 3)


def test_whole_weights_are_not_damaged(tmp_path):
    from flax import serialization

    path = tmp_path / "x.msgpack"
    path.write_bytes(serialization.to_bytes({"w": np.ones(2**24, np.float32)}))
    with left(10 * 2**20), pytest.raises(MemoryError):
        read_tensors(path)


def test_a_whole_checkpoint_is_not_moved_aside(tmp_path):
    large = jax.device_put({"w": np.ones(2**24, np.float32)}, SHARDING)
    checkpoints = Checkpoints(tmp_path, 3)
    checkpoints.save(4, large, {}, {})
    checkpoints.wait()
    with left(10 * 2**20), pytest.raises(MemoryError):
        checkpoints.restore(large, SHARDING)
    assert checkpoints.restore(large, SHARDING).damaged == ()
    checkpoints.close()


def test_a_file_that_claims_too_much_is_damaged():
    """There is memory for what is whole."""
    check_memory(MemoryError())
    check_memory(UserError("no pixels"), 2**60)
    with left(PLENTY // 2), pytest.raises(MemoryError):
        check_memory(RuntimeError("RESOURCE_EXHAUSTED: ..."))
