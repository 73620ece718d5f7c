"""`make bench`: whether a speed has been lost, by ratios, which one machine's mood moves less than its seconds.

    python -m benchmarks regression            compares with this kind of machine's in benchmarks/reference.json
    python -m benchmarks regression --record   measures them anew

Each ratio is ours over something else in the same process at the same time, so that larger is better.
"""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks import end_to_end, train_step
from benchmarks.docs_tables import table
from resnet_jax.errors import UserError

REFERENCE = Path(__file__).with_name("reference.json")

#: A ratio may be less than the reference by this share of it: rounds on two busy cores scatter by half of that.
TOLERANCE = 0.15


def measure(folder: Path, seconds: float, rounds: int, note: Callable[[str], None]) -> dict[str, float]:
    """Ratios by name: of steps beside the plain Flax ones, which run wherever JAX does; of `fit` beside its step."""
    found = {}
    for kind in ("train_step", "eval"):
        (row,) = train_step.measure(kind, ["cifar_resnet20"], ["flax_example"], 128, 0, "float32", [], seconds, rounds,
                                    note)  # fmt: skip
        found[f"{kind}: cifar_resnet20 by flax_example"] = row["ratio"]
    whole, alone = end_to_end.measure(folder, "resnet20", 200, max(3, rounds // 2), note)
    found["fit by its bare step: resnet20 on digits"] = end_to_end.ratio(whole, alone)
    return found


def compare(found: dict[str, float], reference: dict[str, Any]) -> list[list[str]]:
    """A row for each ratio: its name, what it was, what it is, and "ok" or "slower".

    Raises:
      UserError: if the reference has other ratios.
    """
    if found.keys() != reference["ratios"].keys():
        raise UserError(f"{REFERENCE.name} has other ratios: python -m benchmarks regression --record writes it anew")
    return [
        [
            name,
            f"{was:.2f}",
            f"{found[name]:.2f}",
            "ok" if found[name] >= was * (1 - TOLERANCE) else "slower",
        ]
        for name, was in reference["ratios"].items()
    ]


def reference_of(machine: str) -> dict[str, Any]:
    """What was recorded on such a machine: ratios differ between processors, by their vectors and caches.

    Raises:
      UserError: if there is none, said ahead of minutes of measuring.
    """
    known = _read()
    if machine not in known:
        raise UserError(
            f"{REFERENCE.name} has no reference for {machine}, only for {', '.join(known) or 'none'}: "
            "python -m benchmarks regression --record adds it"
        )
    found: dict[str, Any] = known[machine]
    return found


def check(found: dict[str, float], machine: str) -> str:
    """The table of `compare` with the committed reference of this machine.

    Raises:
      UserError: if any ratio is less than it may be, with its name, or there is no reference.
    """
    rows = compare(found, reference_of(machine))
    text = table(["ratio", "reference", "now", ""], rows)
    if slower := [row for row in rows if row[-1] == "slower"]:
        raise UserError("slower than the reference: " + "; ".join(f"{r[0]} {r[2]}, was {r[1]}" for r in slower))
    return text


def record(found: dict[str, float], machine: str, where: str) -> None:
    """Writes the reference of this machine, and leaves those of others."""
    known = _read()
    known[machine] = {"measured_on": where, "ratios": {k: round(v, 3) for k, v in found.items()}}
    REFERENCE.write_text(json.dumps(known, indent=2) + "\n")


def _read() -> dict[str, Any]:
    found: dict[str, Any] = json.loads(REFERENCE.read_text()) if REFERENCE.exists() else {}
    return found
