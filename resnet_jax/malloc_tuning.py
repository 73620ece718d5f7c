"""Tunes malloc so that freed memory stays with the process."""

import ctypes
import importlib.util
import os
import platform
from importlib.metadata import entry_points

#: glibc's parameters (malloc.h) and their values: one arena for all threads, no mmap for large blocks, no trimming.
_SETTINGS = {"M_ARENA_MAX": (-8, 1), "M_MMAP_MAX": (-4, 0), "M_TRIM_THRESHOLD": (-1, -1)}


def keep_freed_memory() -> None:
    """Makes glibc keep freed memory; call it before JAX is imported, whose threads would get arenas of their own.

    XLA's CPU backend allocates activations in every step, 300 MB for ResNet-20 at a batch of 128. glibc returns such
    large blocks to the kernel, which clears their pages again: a quarter of the step (docs/performance.md). Nothing is
    set where JAX has an accelerator and JAX_PLATFORMS is not cpu, where the user has tuned malloc, or without glibc.
    """
    tuned = any(name == "GLIBC_TUNABLES" or name.startswith("MALLOC_") for name in os.environ)
    if tuned or platform.libc_ver()[0] != "glibc" or _may_have_accelerators():
        return
    mallopt = ctypes.CDLL(None).mallopt
    for parameter, value in _SETTINGS.values():
        mallopt(parameter, value)


def _may_have_accelerators() -> bool:
    if platforms := os.environ.get("JAX_PLATFORMS"):  # set but empty counts as unset
        return platforms != "cpu"
    return bool(entry_points(group="jax_plugins")) or importlib.util.find_spec("libtpu") is not None
