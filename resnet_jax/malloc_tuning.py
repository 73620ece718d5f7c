"""Memory that a process frees and soon wants again stays with it."""

import ctypes
import importlib.util
import os
import platform
from importlib.metadata import entry_points

#: glibc's parameters (malloc.h) and what they are set to: no heap of a thread's own, no mapping for large blocks,
#: nothing given back.
_SETTINGS = {"M_ARENA_MAX": (-8, 1), "M_MMAP_MAX": (-4, 0), "M_TRIM_THRESHOLD": (-1, -1)}


def keep_freed_memory() -> None:
    """Tells glibc to keep what is freed; to be called ahead of JAX's import, whose threads would have their own heaps.

    XLA's CPU backend allocates a step's activations anew in every step, 300 MB for ResNet-20 at a batch of 128. glibc
    asks the kernel for blocks so large and gives them back, and the kernel clears page after page: a quarter of the
    step (docs/performance.md). Nothing is set where an accelerator's JAX is installed, unless JAX_PLATFORMS says cpu,
    nor where the user has set anything of glibc's, nor with another libc.
    """
    theirs = any(name == "GLIBC_TUNABLES" or name.startswith("MALLOC_") for name in os.environ)
    if theirs or platform.libc_ver()[0] != "glibc" or _may_have_accelerators():
        return
    mallopt = ctypes.CDLL(None).mallopt
    for parameter, value in _SETTINGS.values():
        mallopt(parameter, value)


def _may_have_accelerators() -> bool:
    if platforms := os.environ.get("JAX_PLATFORMS"):  # set but empty, JAX chooses as if it were not
        return platforms != "cpu"
    return bool(entry_points(group="jax_plugins")) or importlib.util.find_spec("libtpu") is not None
