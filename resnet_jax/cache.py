"""Compiled programs are kept between commands, so that the second start of a run does not compile again."""

import hashlib
import importlib.util
import os
import platform
import tempfile
from pathlib import Path

#: JAX's own variables: folder of compiled programs, and how many bytes they may take there.
FOLDER, MOST_BYTES = "JAX_COMPILATION_CACHE_DIR", "JAX_COMPILATION_CACHE_MAX_SIZE"

#: JAX's own as well: programs that compile faster are not kept. By default that is a second, which leaves out every
#: random number of a net's first parameters: half of a small net's start.
LEAST_SECONDS = "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"

#: Bytes, 2 GiB: a deep net's training step takes a few MiB. The programs used least recently go first.
DEFAULT_MOST_BYTES = 2 * 2**30


def use_compilation_cache() -> None:
    """Sets JAX's variables for a folder in the user's cache; to be called ahead of JAX's import.

    JAX_COMPILATION_CACHE_DIR moves it; set but empty, it turns the cache off. Where the folder cannot be written to,
    or JAX is already there and has read its variables, nothing is set, and every program is compiled anew.
    """
    # JAX needs filelock to bound the size.
    if FOLDER in os.environ or importlib.util.find_spec("filelock") is None:
        return
    try:
        folder = default_folder()
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):  # os.access is wrong about read-only file systems and full disks
            pass
    except (OSError, RuntimeError):  # a RuntimeError: there is no home
        return
    os.environ[FOLDER] = str(folder)
    os.environ.setdefault(MOST_BYTES, str(DEFAULT_MOST_BYTES))
    os.environ.setdefault(LEAST_SECONDS, "0")


def default_folder() -> Path:
    """`$XDG_CACHE_HOME/resnet_jax/CPU`, or `~/.cache/resnet_jax/CPU`.

    CPU names the processor and its instructions: a program that was compiled for others may not run here, JAX's keys
    do not tell them apart, and a home is often shared between machines.
    """
    home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(home) / "resnet_jax" / _processor()


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    # One processor's: "flags" on x86, "Features" on Arm.
    kinds = ("model name", "flags", "Features", "CPU part")
    told = sorted({line for line in lines if line.startswith(kinds)}) or [platform.processor()]
    return f"{platform.machine()}-{hashlib.sha256(chr(10).join(told).encode()).hexdigest()[:12]}"
