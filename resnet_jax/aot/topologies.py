"""Devices that are not there, to compile for: slices of TPUs and nodes of GPUs."""

import dataclasses
import importlib.util
import math
import os
import re
from collections.abc import Sequence
from typing import Any

import jax
from jax.experimental import topologies

from resnet_jax.aot.quiet import without_stderr
from resnet_jax.errors import UserError, one_line, unknown_name

GIB = 2**30


@dataclasses.dataclass(frozen=True)
class Chip:
    """Holds what a chip can do, as its maker says.

    Attributes:
      name: in `--topology`.
      platform: "tpu" or "cuda".
      flops: bfloat16 operations a second.
      bandwidth: bytes a second from memory.
      memory: bytes.
      link: bytes a second that a chip sends to the others of its slice or node, in one direction.
      clock: cycles a second, for the compiler's estimates; None where it is not published.
      dimensions: of the slices: 2, or 3 for a torus; 1 for GPUs of a node.
      options: further ones of the topology.
    """

    name: str
    platform: str
    flops: float
    bandwidth: float
    memory: float
    link: float
    clock: float | None
    dimensions: int
    options: dict[str, Any] = dataclasses.field(default_factory=dict)


#: Quoted: cloud.google.com/tpu/docs, the page of each version; NVIDIA's data sheets. The links are half of what is
#: given for both directions together, which is a chip's share of what is given for the all-reduce of a pod: 51.2 TB/s
#: for the 256 chips of a v5e. The page of the v4 has only that: 1.1 PB/s for 4,096.
CHIPS = {
    chip.name: chip
    for chip in (
        # Two cores act as one device, as JAX programs see it on a v4.
        Chip("v4", "tpu", 275e12, 1228e9, 32 * GIB, 269e9, 1.05e9, 3, {"chip_config_name": "megacore"}),
        Chip("v5e", "tpu", 197e12, 819e9, 16 * GIB, 200e9, 1.5e9, 2),
        Chip("v5p", "tpu", 459e12, 2765e9, 95 * GIB, 600e9, 1.75e9, 3),
        Chip("v6e", "tpu", 918e12, 1640e9, 32 * GIB, 400e9, None, 2),
        Chip("a100", "cuda", 312e12, 2039e9, 80 * GIB, 300e9, None, 1),
        Chip("h100", "cuda", 989e12, 3352e9, 80 * GIB, 450e9, None, 1),
    )
}

#: What XLA's GPU compiler asks of a chip: NVIDIA's whitepapers of the A100 and H100 (SXM).
GPUS: dict[str, dict[str, Any]] = {
    "a100": {"major": 8, "core_count": 108, "fpus_per_core": 64, "shared_memory_per_core": 167_936,
             "shared_memory_per_block_optin": 166_912, "l2_cache_size": 41_943_040, "clock_rate_ghz": 1.41},
    "h100": {"major": 9, "core_count": 132, "fpus_per_core": 128, "shared_memory_per_core": 233_472,
             "shared_memory_per_block_optin": 232_448, "l2_cache_size": 52_428_800, "clock_rate_ghz": 1.98},
}  # fmt: skip

#: For a mistake's message.
EXAMPLES = "v5e:1x1, v5e:2x2, v5e:16x16, v4:2x2x1, v5p:4x4x4, v6e:4x4, h100:8"

#: TPU slices of one to four chips that share a host; larger ones are made of hosts with 2x2 chips.
SMALL = {(1, 1), (1, 2), (2, 1), (1, 1, 1), (1, 2, 1), (2, 1, 1)}


def parse(topology: str) -> tuple[Chip, tuple[int, ...]]:
    """Returns the kind of chip in a topology, and the sides in which there are so many.

    Args:
      topology: a chip's name and sides, as "v5e:16x16", "v5p:4x4x4" or "h100:8".

    Raises:
      UserError: for a name that is unknown, and sides that are no numbers or too many.
    """
    name, _, text = topology.partition(":")
    if name not in CHIPS:
        raise unknown_name("chip", name, CHIPS)
    chip = CHIPS[name]
    if not re.fullmatch(r"[1-9]\d*(x[1-9]\d*)*", text):
        raise UserError(f"--topology={topology!r} needs a chip and its number of sides, as {EXAMPLES}")
    sides = tuple(map(int, text.split("x")))
    if len(sides) > chip.dimensions:
        raise UserError(f"--topology={topology!r}: {name} has {chip.dimensions} sides at most, as {EXAMPLES}")
    return chip, sides


def find(topology: str) -> tuple[Chip, list[jax.Device]]:
    """Returns the chips of a topology, for programs to be compiled for; see `parse`.

    Raises:
      UserError: for what `parse` refuses, sides that do not exist, and a compiler that is not installed.
    """
    chip, sides = parse(topology)
    try:
        return chip, (_tpu if chip.platform == "tpu" else _gpu)(chip, sides)
    except UserError:
        raise
    except Exception as error:  # the plugins raise several types
        raise UserError(f"there is no topology {topology!r}: {one_line(error)}; known are {EXAMPLES}") from error


def _tpu(chip: Chip, sides: Sequence[int]) -> list[jax.Device]:
    if importlib.util.find_spec("libtpu") is None:
        raise UserError("compiling for TPUs needs libtpu, which is not installed: pip install -e '.[tpu]'")
    # The library asks the cloud's metadata for what machine this is, and complains at length where there is none.
    for variable, value in (
        ("TPU_SKIP_MDS_QUERY", "1"), ("TPU_ACCELERATOR_TYPE", "v5e-4"), ("TPU_WORKER_HOSTNAMES", "localhost"),
        ("ALLOW_MULTIPLE_LIBTPU_LOAD", "1"),
    ):  # fmt: skip
        os.environ.setdefault(variable, value)
    options = dict(chip.options)
    if tuple(sides) in SMALL:
        options["chips_per_host_bounds"] = [*sides, *[1] * (3 - len(sides))]
    name = f"{chip.name}:{'x'.join(map(str, sides))}"
    with without_stderr():
        described = topologies.get_topology_desc(platform="tpu", topology_name=name, **options)
    devices = list(described.devices)
    assert len(devices) == math.prod(sides), f"{name} has {len(devices)} devices"
    return devices


def _gpu(chip: Chip, sides: Sequence[int]) -> list[jax.Device]:
    plugins = [name for name in ("jax_cuda13_plugin", "jax_cuda12_plugin") if importlib.util.find_spec(name)]
    if not plugins:
        raise UserError("compiling for GPUs needs JAX's CUDA plugin, which is not installed: pip install -e '.[cuda]'")
    options = {"target_config": _description(chip), "topology": f"1x1x{sides[0]}"}
    with without_stderr():
        return list(topologies.get_topology_desc("", "cuda", **options).devices)


def _description(chip: Chip) -> str:
    """Returns a GPU in the text format of XLA's `GpuTargetConfigProto`."""
    numbers = {
        "threads_per_block_limit": 1024, "threads_per_warp": 32, "shared_memory_per_block": 49_152,
        "threads_per_core_limit": 2048, "block_dim_limit_x": 2**31 - 1, "block_dim_limit_y": 65_535,
        "block_dim_limit_z": 65_535, "registers_per_core_limit": 65_536, "registers_per_block_limit": 65_536,
        "memory_bandwidth": int(chip.bandwidth), "device_memory_size": int(chip.memory), **GPUS[chip.name],
    }  # fmt: skip
    major = numbers.pop("major")
    fields = "\n".join(f"  {name}: {value}" for name, value in numbers.items())
    return (
        f"gpu_device_info {{\n{fields}\n  cuda_compute_capability {{ major: {major} }}\n}}\n"
        f'platform_name: "CUDA"\ndnn_version_info {{ major: 9 minor: 7 }}\ndevice_description_str: "{chip.name}"\n'
    )
