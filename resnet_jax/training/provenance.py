"""Says where a number comes from: commit, versions, hardware."""

import importlib.metadata
import os
import platform
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax

from resnet_jax.kernels.build import in_use as kernels_in_use

PACKAGES = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy", "tensorflow-datasets")


def commit() -> str:
    """Returns the commit of the source that runs, with "-dirty" if files of it were changed; "unknown" outside git."""
    source = Path(__file__).resolve().parents[2]
    try:
        # Only if this file itself is tracked: an installed package may lie inside somebody else's repository.
        _git(source, "ls-files", "--error-unmatch", str(Path(__file__).resolve()))
        return _git(source, "describe", "--always", "--dirty", "--abbrev=12", "--exclude=*")
    except (OSError, subprocess.SubprocessError):
        return "unknown"


def _git(directory: Path, *arguments: str) -> str:
    command = ["git", "-C", str(directory), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=20).stdout.strip()


def versions() -> dict[str, str]:
    """Returns the versions of Python, this package and those that results depend on."""
    found = {"python": platform.python_version()}
    for package in ("resnet_jax", *PACKAGES):
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            found[package] = "unknown"
    return found


def hardware(devices: Sequence[jax.Device]) -> dict[str, Any]:
    """Returns the devices that a run computes on and the host's processor; on a CPU, also whose layers it uses."""
    found = {
        "platform": devices[0].platform,
        "device": devices[0].device_kind,
        "devices": len(devices),
        "hosts": jax.process_count(),
        "cpu": _cpu_model(),
        "cpu_cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
    }
    if devices[0].platform == "cpu":
        found["convolutions"] = "compiled" if kernels_in_use(devices) else "XLA"
    return found


def _cpu_model() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()
