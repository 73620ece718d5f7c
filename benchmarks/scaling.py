"""Measures scaling on virtual CPU devices, and calculates that of real ones from the bytes all-reduced.

    python -m benchmarks scaling --write

Virtual devices share the cores, so that their speed says nothing about a pod. They show that nothing is computed twice:
N devices together would then do 1/N as much.
"""

import dataclasses
from collections.abc import Sequence
from typing import Any

from benchmarks import note
from benchmarks.docs_tables import table
from benchmarks.local_processes import answer
from resnet_jax.aot.cost import ring_seconds
from resnet_jax.kernels.build import SWITCH


@dataclasses.dataclass(frozen=True)
class Machine:
    """Devices joined by a fast link in groups, and the groups by a slower one. The numbers are quoted.

    Attributes:
      name: of the device.
      flops: bfloat16 operations a second of one.
      group: devices that the fast link joins.
      inside: bytes a second in one direction of a device's fast link.
      between: bytes a second in one direction of a device's share of the slower one.
      source: of the numbers.
    """

    name: str
    flops: float
    group: int
    inside: float
    between: float
    source: str


MACHINES = (
    # The page has 400 GB/s of a chip in both directions together, and 6.4 Tbit/s of a pod of 256 chips: two adapters of
    # 100 Gbit/s for each host of 8.
    Machine("TPU v5e", 197e12, 256, 200e9, 6.4e12 / 8 / 256, 'Google, "TPU v5e", cloud.google.com/tpu/docs/v5e'),
    # 900 GB/s of NVLink in both directions together; one adapter of 400 Gbit/s for each of 8 GPUs. The peak is half of
    # the data sheet's 1,979 TFLOP/s, which are with sparsity.
    Machine("H100 SXM", 989e12, 8, 450e9, 50e9, 'NVIDIA, H100 data sheet; "Core Components" of DGX BasePOD'),
)

#: Assumed, not measured: the share of a device's peak that a step's convolutions reach, and the seconds that each
#: all-reduce takes however small it is.
UTILISATION, LATENCY = 0.4, 20e-6

#: The setting of the calculation: ImageNet's ResNet-50, images of one device in weak scaling, of all in strong scaling.
NET, PER_DEVICE, IN_ALL = "resnet50", 128, 4096

COUNTS = (8, 64, 512)


def all_reduce_seconds(machine: Machine, devices: int, size: float) -> float:
    """Returns the seconds of a ring inside each group, and one between the groups for each device's part."""
    inside = min(devices, machine.group)
    groups = -(-devices // machine.group)
    return ring_seconds(inside, size, machine.inside) + ring_seconds(groups, size / inside, machine.between)


def efficiency(compute: float, communicate: float, fixed: float) -> tuple[float, float]:
    """Returns the share of time in which a device computes, with no transfer overlapped, and with all that fits.

    Args:
      compute: seconds of a step without communication.
      communicate: seconds of the gradients' transfer, which may run beside the backward pass.
      fixed: seconds of latency, which may not: most all-reduces are batch statistics that the next layer waits for.
    """
    return compute / (compute + communicate + fixed), compute / (max(compute, communicate) + fixed)


def predicted(machine: Machine, devices: int, batch: int, counted: dict[str, Any]) -> tuple[float, float]:
    """Returns the `efficiency` of a training step.

    Args:
      machine, devices: what it runs on, and how many.
      batch: images of one device.
      counted: what `collectives.count` says of the net.
    """
    compute = 3 * 2 * counted["forward"] * batch / (machine.flops * UTILISATION)
    return efficiency(compute, all_reduce_seconds(machine, devices, counted["bytes"]), counted["all_reduces"] * LATENCY)


def _child(devices: int, *code: str) -> dict[str, Any]:
    environment = {
        "JAX_PLATFORMS": "cpu",
        SWITCH: "0",  # compiled convolutions are for one device: the others would be compared with something else
        "XLA_FLAGS": f"--xla_force_host_platform_device_count={devices}",
    }
    return answer(code, f"with {devices} devices", environment)


def measure(model: str, batch_size: int, devices: Sequence[int], seconds: float, rounds: int) -> dict[str, Any]:
    """Measures scaling of a small net over virtual devices, and counts the all-reduces of `NET` on two.

    Args:
      model: the net that is run.
      batch_size: in weak scaling for each device, in strong scaling for all.
      devices: numbers of devices.
      seconds, rounds: see `time_in_turn`.
    """
    rows = []
    for count in devices:
        for kind, batch in (("weak", batch_size * count), ("strong", batch_size * max(devices))):
            note(f"{kind} scaling, {count} devices")
            found = _child(count, "-m", "benchmarks.collectives", model, str(batch), str(seconds), str(rounds))
            rows.append({"kind": kind, **found})
    note(f"counting the bytes that {NET} all-reduces")
    code = "import json, benchmarks.collectives as c; trainer = c.make_benchmark_trainer({!r}, 2, **{}); "
    code += "print(json.dumps(c.count(trainer)))"
    counted = {
        "the whole batch": _child(2, "-c", code.format(NET, {"image_size": 32})),
        "each device": _child(2, "-c", code.format(NET, {"image_size": 32, "bn_group_size": 1})),
    }
    from resnet_jax.models.summary import variant_summary

    for one in counted.values():  # the bytes do not depend on the images' size; the work does
        one["forward"] = variant_summary(NET).flops
    return {"model": model, "rows": rows, "counted": counted}


def report(found: dict[str, Any]) -> str:
    """Returns the tables."""
    base = {kind: next(r for r in found["rows"] if r["kind"] == kind) for kind in ("weak", "strong")}
    cells = [
        [row["kind"], str(row["devices"]), str(row["batch_size"]), f"{row['images_per_second']:,.0f}",
         f"{row['images_per_second'] / base[row['kind']]['images_per_second']:.2f}", str(row["all_reduces"]),
         f"{row['bytes'] / 1e6:.3f}", f"{row['bytes'] / (4 * row['params']):.3f}"]
        for row in found["rows"]
    ]  # fmt: skip
    headings = ["scaling", "virtual devices", "batch", "images/s", "by one device's", "all-reduces a step", "MB",
                "by 4 bytes a parameter"]  # fmt: skip
    text = [f"{found['model']}:", table(headings, cells), f"{NET} on two devices, statistics over ...:"]
    cells = [
        [what, str(one["all_reduces"]), f"{one['bytes'] / 1e6:.2f}", f"{one['bytes'] / (4 * one['params']):.4f}"]
        for what, one in found["counted"].items()
    ]
    text.append(table(["statistics over", "all-reduces a step", "MB", "by 4 bytes a parameter"], cells))
    text.append(
        f"Calculated, not measured: {NET}, bfloat16, {PER_DEVICE} images a device (weak) or {IN_ALL:,} in all "
        f"(strong), at {100 * UTILISATION:.0f} % of the devices' peak without communication and {1e6 * LATENCY:.0f} "
        "µs for every all-reduce, both assumed. Efficiency in percent, nothing of the transfer overlapped - all of it:"
    )
    cells = []
    for machine in MACHINES:
        for what, one in found["counted"].items():
            cells.append([
                f"{machine.name}, {what}",
                *(_percent(predicted(machine, n, PER_DEVICE, one)) for n in COUNTS),
                *(_percent(predicted(machine, n, IN_ALL // n, one)) for n in COUNTS),
            ])  # fmt: skip
    text.append(table(["devices", *(f"{k}, {n}" for k in ("weak", "strong") for n in COUNTS)], cells))
    return "\n\n".join(text)


def _percent(both: tuple[float, float]) -> str:
    return " - ".join(f"{100 * share:.0f}" for share in both)
