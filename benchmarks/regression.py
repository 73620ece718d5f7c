"""`make bench`: finds lost speed by ratios, which depend less on the load of a machine than seconds do.

    python -m benchmarks regression            compares with this kind of machine's in benchmarks/reference.json
    python -m benchmarks regression --record   measures them anew

Each ratio is our speed divided by another's, in the same process at the same time: higher is better.
"""

import json
from pathlib import Path
from typing import Any

from benchmarks import end_to_end, train_step
from benchmarks.docs_tables import machine, measured_on, table
from benchmarks.paired_timing import ratio
from resnet_jax.errors import UserError

REFERENCE = Path(__file__).with_name("reference.json")

#: A ratio may be lower than the reference by this share of it: rounds on two busy cores vary by half of that.
TOLERANCE = 0.15


def measure(seconds: float, rounds: int, record: bool = False) -> dict[str, float]:
    """Returns ratios by name: of our steps to plain Flax ones, and of `fit` to its bare step.

    With `record`, they are this machine's reference from now on.

    Raises:
      UserError: if this machine has no reference and is to have none.
    """
    if not record:
        reference_of(machine())
    found = {}
    for kind in ("train_step", "eval"):
        step = train_step.measure(kind, ["cifar_resnet20"], ["flax_example"], batch_size=128, seconds=seconds,
                                  rounds=rounds)  # fmt: skip
        found[f"{kind}: cifar_resnet20 by flax_example"] = step["ratio"]
    rates = end_to_end.measure("resnet20", 200, max(3, rounds // 2))
    found["fit by its bare step: resnet20 on digits"] = ratio(rates[end_to_end.FIT], rates[end_to_end.BARE])
    if record:
        write_reference(found, machine())
    return found


def reference_of(name: str) -> dict[str, float]:
    """Returns the ratios that were recorded on such a machine: they differ between processors.

    Raises:
      UserError: if there are none.
    """
    known = _read()
    if name not in known:
        raise UserError(
            f"{REFERENCE.name} has no reference for {name}, only for {', '.join(known) or 'none'}: "
            "python -m benchmarks regression --record adds it"
        )
    found: dict[str, float] = known[name]["ratios"]
    return found


def report(found: dict[str, float], name: str = "") -> str:
    """Returns a table of the ratios beside the reference of a machine, by default of this one.

    Raises:
      UserError: if a ratio is too low, with its name, if there is no reference, or if it has other ratios.
    """
    reference = reference_of(name or machine())
    if found.keys() != reference.keys():
        raise UserError(f"{REFERENCE.name} has other ratios: python -m benchmarks regression --record writes it anew")
    slower = [key for key, was in reference.items() if found[key] < was * (1 - TOLERANCE)]
    if slower:
        texts = (f"{key} {found[key]:.2f}, was {reference[key]:.2f}" for key in slower)
        raise UserError(f"slower than the reference: {'; '.join(texts)}")
    rows = [[key, f"{was:.2f}", f"{found[key]:.2f}"] for key, was in reference.items()]
    return table(["ratio", "reference", "now"], rows)


def write_reference(found: dict[str, float], name: str) -> None:
    """Writes the reference of a machine, and leaves those of others."""
    ratios = {key: round(value, 3) for key, value in found.items()}
    known = _read() | {name: {"measured_on": measured_on(), "ratios": ratios}}
    REFERENCE.write_text(json.dumps(known, indent=2) + "\n")


def _read() -> dict[str, Any]:
    found: dict[str, Any] = json.loads(REFERENCE.read_text()) if REFERENCE.exists() else {}
    return found
