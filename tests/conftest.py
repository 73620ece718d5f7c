"""Eight virtual CPU devices, so that tests can shard; each test says how many it takes.

Programs compile once in a session, whichever worker of pytest-xdist needs them: many tests train the same tiny net.
They compile without optimisations, in a sixth of the time: tiny nets run in milliseconds however they are compiled.
`make soak` and the runs of tests/experiments/test_processes.py compile as a user's do.
"""

import gc
import importlib.metadata
import os
import shlex
import shutil
import tempfile

os.environ["XLA_FLAGS"] = " ".join([
    "--xla_backend_optimization_level=0",
    # Later versions end at once over a flag that is gone.
    "--xla_cpu_use_fusion_emitters=false" if importlib.metadata.version("jaxlib").startswith("0.10.") else "",
    os.environ.get("XLA_FLAGS", ""),
    "--xla_force_host_platform_device_count=8",
])  # fmt: skip
os.environ["JAX_PLATFORMS"] = "cpu"
os.environ.setdefault("RESNET_JAX_KERNELS", "0")  # without its layers in C++, but for the tests that ask for `kernels`
os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from ml_collections import ConfigDict

from resnet_jax.cli import run_command

# Commands that tests run in this process leave its heap as it is: a leak could hide in freed memory that it keeps.
run_command.keep_freed_memory = lambda: None

# Tracing makes millions of small objects that are no garbage.
gc.set_threshold(100_000, 50, 100)

IS_WORKER = "PYTEST_XDIST_WORKER" in os.environ
CACHE = "JAX_COMPILATION_CACHE_DIR"
if not IS_WORKER:  # workers inherit it
    os.environ[CACHE] = tempfile.mkdtemp(prefix="resnet_jax_tests_")


#: Files that take minutes or wait for processes: none of them is to be the last, with the other workers idle.
LONG = ("training/test_processes.py", "training/test_kills.py", "experiments/test_processes.py",
        "experiments/test_end_to_end.py", "benchmarks/test_differences.py", "training/test_fit.py",
        "evaluation/test_photographs.py")  # fmt: skip


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Long files first, in their order above."""

    def place(item: pytest.Item) -> int:
        path = item.path.as_posix()
        return next((i for i, name in enumerate(LONG) if path.endswith(name)), len(LONG))

    items.sort(key=place)


def make_tiny_config(**fields: Any) -> ConfigDict:
    """A config that trains in a second: an 8-layer net with narrow stages on digits; fields by their dotted names."""
    from configs.digits import get_config

    config = get_config("resnet20")
    config.model.stage_sizes, config.model.widths = (1, 1, 1), (4, 8, 8)
    config.update({"steps": 6, "batch_size": 16, "log_every": 2, "eval_every": 3, "checkpoint_every": 2})
    config.update_from_flattened_dict({name.replace("__", "."): value for name, value in fields.items()})
    return config


@pytest.fixture(scope="session")
def tiny_config() -> Callable[..., ConfigDict]:
    """See `make_tiny_config`."""
    return make_tiny_config


@pytest.fixture(scope="session")
def compiled_folder() -> Path:
    """Of compiled kernels: the session's own, which all of its workers share, and which goes with it."""
    if shutil.which(shlex.split(os.environ.get("CXX") or "c++")[0]) is None:
        pytest.skip("no C++ compiler is installed")
    return Path(os.environ[CACHE]) / "kernels"


@pytest.fixture
def asked_anew(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Whether compiled kernels are available is asked anew, of a user who has not switched them off."""
    import jax

    from resnet_jax.kernels import build

    def forget() -> None:
        build.library.cache_clear()
        jax.clear_caches()

    monkeypatch.delenv(build.SWITCH, raising=False)
    forget()
    yield
    forget()


@pytest.fixture
def kernels(asked_anew: None, compiled_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Compiled kernels compute what they can in programs for one device."""
    from resnet_jax.kernels import build

    monkeypatch.setattr(build, "default_folder", lambda: compiled_folder)
    assert build.available(), "there is a C++ compiler, and they do not compile"


def pytest_unconfigure() -> None:
    if not IS_WORKER:
        shutil.rmtree(os.environ[CACHE], ignore_errors=True)
