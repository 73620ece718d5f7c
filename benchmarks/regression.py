"""`make bench`: finds lost speed by ratios, which depend less on the load of a machine than seconds do.

    python -m benchmarks regression            compares with this kind of machine's in benchmarks/reference.json
    python -m benchmarks regression --record   measures them anew

Each ratio is our speed divided by another's, in the same process at the same time: higher is better.
"""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks import end_to_end, train_step
from benchmarks.docs_tables import table
from resnet_jax.errors import UserError

REFERENCE = Path(__file__).with_name("reference.json")

#: A ratio may be lower than the reference by this share of it: rounds on two busy cores vary by half of that.
TOLERANCE = 0.15


def measure(folder: Path, seconds: float, rounds: int, note: Callable[[str], None]) -> dict[str, float]:
    """Returns ratios by name: of our steps to plain Flax ones, and of `fit` to its bare step."""
    found = {}
    for kind in ("train_step", "eval"):
        (row,) = train_step.measure(kind, ["cifar_resnet20"], ["flax_example"], 128, 0, "float32", [], seconds, rounds,
                                    note)  # fmt: skip
        found[f"{kind}: cifar_resnet20 by flax_example"] = row["ratio"]
    whole, alone = end_to_end.measure(folder, "resnet20", 200, max(3, rounds // 2), note)
    found["fit by its bare step: resnet20 on digits"] = end_to_end.ratio(whole, alone)
    return found


def compare(found: dict[str, float], reference: dict[str, Any]) -> list[list[str]]:
    """Returns a row for each ratio: its name, what it was, what it is, and "ok" or "slower".

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
    """Returns what was recorded on such a machine: ratios differ between processors.

    Raises:
      UserError: if there is none.
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
    """Returns the table of `compare` with the committed reference of this machine.

    Raises:
      UserError: if a ratio is too low, with its name, or there is no reference.
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
