"""Measures scaling on virtual CPU devices, and counts what they send each other.

    python -m benchmarks scaling --write

Virtual devices share the cores, so that their speed says nothing about a pod. They show that nothing is computed twice:
N devices together would then do 1/N as much. What real ones will do is in `slices`.
"""

from collections.abc import Sequence
from typing import Any

from benchmarks import note
from benchmarks.docs_tables import table
from benchmarks.local_processes import answer
from resnet_jax.kernels.build import SWITCH

#: The net whose all-reduces are counted.
NET = "resnet50"


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
    return "\n\n".join(text)
