"""Finds the devices of this machine, and the environment that gives a process its share of them."""

import os
import re
from collections.abc import Mapping
from typing import Any

from benchmarks.local_processes import answer
from resnet_jax.errors import UserError

#: Runs in a process of its own: a process that has opened a device keeps others off it.
_PROBE = """\
import json, os, jax
from resnet_jax.training.result import hardware
devices = jax.local_devices()
chips = len({tuple(getattr(d, "coords", (d.id,))) for d in devices})  # two devices of an old TPU share a chip
print(json.dumps({"hardware": hardware(jax.devices()), "chips": chips}))
"""

#: Share of a GPU's memory for all processes on it together; by default JAX takes three quarters for each.
MEMORY_FRACTION = 0.9


def probe(env: Mapping[str, str] | None = None) -> dict[str, Any]:
    """Returns the hardware that a run would see.

    Args:
      env: environment variables besides this process's own.

    Returns:
      "hardware" as in result.json, and "chips", how many can be given to different processes.

    Raises:
      UserError: if JAX finds no device.
    """
    found: dict[str, Any] = answer(["-c", _PROBE], "JAX finds no device to run on", env)
    return found


def slots(per_device: bool, at_once: int, environment: Mapping[str, str] = os.environ) -> list[dict[str, str]]:
    """Returns one environment for each run that goes at the same time.

    Args:
      per_device: whether each run has a device of its own; else each has all of them.
      at_once: runs that share a device (or all of them).
      environment: this process's own variables.

    Raises:
      UserError: for several runs on a TPU chip, which only one process can open.
    """
    if not per_device and at_once == 1:
        return [{}]
    found = probe()
    platform = found["hardware"]["platform"]
    if platform == "tpu" and at_once > 1:
        raise UserError(f"--at_once={at_once} is for GPU and CPU: a TPU's chip can be opened by one process only")
    pins = pinned(platform, found["chips"], environment) if per_device else [{}]
    return [{**pin, **share(platform, at_once, environment)} for _ in range(at_once) for pin in pins]


def pinned(platform: str, count: int, environment: Mapping[str, str]) -> list[dict[str, str]]:
    """Returns, for each of `count` devices, the variables that show a process this one alone."""
    if platform in ("gpu", "cuda", "rocm"):
        listed = environment.get("CUDA_VISIBLE_DEVICES", "")
        names = listed.split(",") if listed else [str(i) for i in range(count)]
        return [{"CUDA_VISIBLE_DEVICES": name} for name in names]
    if platform == "tpu":
        return [
            {
                "TPU_VISIBLE_DEVICES": str(i),
                "TPU_PROCESS_BOUNDS": "1,1,1",
                "TPU_CHIPS_PER_PROCESS_BOUNDS": "1,1,1",
                "TPU_MESH_CONTROLLER_ADDRESS": f"localhost:{8476 + i}",  # a port for each process
                "TPU_MESH_CONTROLLER_PORT": str(8476 + i),
            }
            for i in range(count)
        ]
    # A CPU is one device unless XLA was told to act as if it were several; each run then gets one.
    flags = re.sub(r"--xla_force_host_platform_device_count=\d+", "", environment.get("XLA_FLAGS", ""))
    return [{"XLA_FLAGS": flags.strip()} for _ in range(count)]


def share(platform: str, at_once: int, environment: Mapping[str, str]) -> dict[str, str]:
    """Returns the variables that let `at_once` processes share a device."""
    if at_once == 1 or platform == "cpu" or "XLA_PYTHON_CLIENT_MEM_FRACTION" in environment:
        return {}
    return {"XLA_PYTHON_CLIENT_MEM_FRACTION": f"{MEMORY_FRACTION / at_once:.2f}"}
