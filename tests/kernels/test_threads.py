"""How many threads share the work changes no bit of it."""

import contextlib
import hashlib
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import jax
import numpy as np
import pytest

from tests.kernels import test_batch_norm as norms
from tests.kernels import test_convolution as convolutions
from tests.kernels.direct import calls

ROOT = Path(__file__).parents[2]

OF_A_PROCESS = """
import sys
from pathlib import Path
from resnet_jax.kernels import build
build.default_folder = lambda: Path(sys.argv[1])
from tests.kernels.test_threads import digest
print(digest())
"""


def digest():
    """Of all results of batches that are shared out among threads, and how many threads there are.

    Several callers at once have the same: they share the threads.
    """
    seen, work = hashlib.sha256(), []
    for name in ("3x3, strided", "many small images", "a kernel of many blocks"):
        operands, window = convolutions.example(name)
        work.append((partial(convolutions.gradients, window=window), operands, 3))
    for name in ("two groups", "many positions", "many channels"):
        work.append((partial(norms.gradients, relu=True), norms.example(name), 2))
    for function, operands, count in work:
        assert calls(function, *operands) == count
        with ThreadPoolExecutor(4) as callers:
            results = list(callers.map(lambda _, f=function, o=operands: jax.tree.leaves(f(*o)), range(8)))
        for x, *others in zip(*results, strict=True):
            assert all(np.array_equal(x, other) for other in others)
            seen.update(np.asarray(x).tobytes())
    threads = 0
    for task in Path("/proc/self/task").iterdir():
        with contextlib.suppress(OSError):  # a thread that has just ended
            threads += "XLAEigen" in (task / "comm").read_text()
    return f"{seen.hexdigest()} {threads}"


@pytest.mark.skipif(sys.platform != "linux", reason="threads are counted in Linux's /proc")
def test_threads_change_no_bit(kernels, compiled_folder):
    """One thread, in a process of its own, gives what this process's many give."""
    here, many = digest().split()
    environment = {**os.environ, "XLA_FLAGS": "", "NPROC": "1", "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", OF_A_PROCESS, str(compiled_folder)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True, cwd=ROOT)
    there, one = done.stdout.split()
    assert int(many) > int(one) == 1 and there == here
