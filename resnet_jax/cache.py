"""Keeps compiled programs between commands, so that a run that is started again does not compile again."""

import hashlib
import importlib.util
import os
import platform
import tempfile
from pathlib import Path

#: JAX's variables: folder of compiled programs, and its maximum size in bytes.
FOLDER, MOST_BYTES = "JAX_COMPILATION_CACHE_DIR", "JAX_COMPILATION_CACHE_MAX_SIZE"

#: JAX's variable: programs that compile faster are not kept. The default of a second leaves out the programs that
#: initialise parameters, which take half of a small net's start.
LEAST_SECONDS = "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"

#: 2 GiB: a deep net's training step takes a few MiB. The least recently used programs are removed first.
DEFAULT_MOST_BYTES = 2 * 2**30

#: Bits of a file's mode.
WRITABLE_BY_OTHERS = 0o022


def use_compilation_cache() -> None:
    """Sets JAX's variables for a folder in the user's cache; call it before JAX is imported.

    JAX_COMPILATION_CACHE_DIR moves the folder; set but empty, it turns the cache off. Nothing is set where the folder
    cannot be written to, or is another user's.
    """
    # JAX needs filelock to limit the size.
    if FOLDER in os.environ or importlib.util.find_spec("filelock") is None:
        return
    try:
        folder = default_folder()
        make_private(folder)
        with tempfile.TemporaryFile(dir=folder):  # os.access is wrong about read-only file systems and full disks
            pass
    except (OSError, RuntimeError):  # RuntimeError: there is no home
        return
    os.environ[FOLDER] = str(folder)
    os.environ.setdefault(MOST_BYTES, str(DEFAULT_MOST_BYTES))
    os.environ.setdefault(LEAST_SECONDS, "0")


def default_folder() -> Path:
    """Returns `$XDG_CACHE_HOME/resnet_jax/CPU`, or `~/.cache/resnet_jax/CPU`.

    CPU names the processor and its instructions. A home is often shared between machines, a program compiled for
    another processor may not run, and JAX's keys do not tell processors apart.
    """
    home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(home) / "resnet_jax" / _processor()


def make_private(folder: Path) -> None:
    """Makes a folder for programs that this process will load and run, which no other user can write to.

    Programs in one that others could write to are removed: they may be theirs.

    Raises:
      OSError: if it cannot be made, or is another user's.
    """
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    status = folder.stat()
    if status.st_uid != os.geteuid():
        raise PermissionError(f"{folder} is another user's")
    if status.st_mode & WRITABLE_BY_OTHERS:
        folder.chmod(status.st_mode & ~WRITABLE_BY_OTHERS)
        for pattern in ("kernels-*", "*-cache", "*-atime"):  # of `kernels.build`, and two of JAX's
            for program in folder.glob(pattern):
                program.unlink(missing_ok=True)


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    # One processor's: "flags" on x86, "Features" on Arm.
    kinds = ("model name", "flags", "Features", "CPU part")
    found = sorted({line for line in lines if line.startswith(kinds)}) or [platform.processor()]
    return f"{platform.machine()}-{hashlib.sha256(chr(10).join(found).encode()).hexdigest()[:12]}"
