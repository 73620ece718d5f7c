"""Compiles training steps for slices of TPUs that are not there, and a minimal Flax step beside them.

    python -m benchmarks slices --write
    python -m benchmarks slices --rows=resnet50@v5e:4x4,cifar_resnet110+scan@v6e:1x1

A row is NET[+FIELD...][/IMAGES]@CHIP:SIDES: a net, fields that differ from its config's, and images of each chip if not
the papers' number. What was compiled is kept in results/slices.json, and only what is missing there is compiled. Each
program has a process of its own, since compiling takes gigabytes.
"""

import json
import math
import re
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from benchmarks import ROOT, note
from benchmarks.docs_tables import measured_on, table
from benchmarks.local_processes import answer
from benchmarks.memory import paper_batch
from resnet_jax.atomic_write import read_json_object, write_file
from resnet_jax.errors import UserError, unknown_name

#: What was compiled, by row.
RECORDS = ROOT / "results" / "slices.json"

#: Fields that a row may name. "one_group" has batch statistics of all images of a chip, in place of the papers' groups;
#: "flax" is the minimal step in plain Flax of benchmarks/peers.
FIELDS: dict[str, dict[str, Any]] = {
    "float32": {"dtype": "float32"},
    "remat": {"model.remat": True},
    "scan": {"model.scan": True},
    "fold_norm": {"model.fold_norm": True},
    "one_group": {},
    "flax": {},
}

ROWS = (
    *(f"resnet50{step}@v5e:{sides}" for sides in ("1x1", "2x4", "8x8", "16x16") for step in ("", "+flax")),
    "resnet50@v4:2x2x1", "resnet50@v5p:2x2x1", "resnet50@v6e:2x2",
    *(f"cifar_resnet{depth}@v5e:1x1" for depth in (20, 56, 110)), "cifar_resnet20@v5e:2x4",
)  # fmt: skip

#: Nets of 110 layers and more, and what makes their programs small. A loop is faster with one group of statistics.
DEEP = tuple(
    f"{net}{way}@v5e:1x1"
    for net in ("cifar_resnet110", "cifar_preact_resnet164", "cifar_preact_resnet1001", "cifar_resnet1202")
    for way in ("", "+scan", "+scan+one_group", "+scan+remat+one_group")
)

#: Columns, and those of what several chips send each other.
HEADINGS = ("net", "with", "chips", "images", "memory, GiB", "GFLOP", "GB moved", "roofline, ms", "bound by",
            "images/s at most", "estimated, ms")  # fmt: skip
EXCHANGE = ("collectives", "MB", "on the links, ms", "efficiency, %")


class Row(NamedTuple):
    """A row's parts.

    Attributes:
      net: its name.
      fields: keys of `FIELDS`.
      images: of each chip.
      topology: as `compile` takes it.
    """

    net: str
    fields: tuple[str, ...]
    images: int
    topology: str

    @classmethod
    def parse(cls, text: str) -> "Row":
        """Reads a row.

        Raises:
          UserError: for one that is none, an unknown net, field or chip.
        """
        from resnet_jax.aot.topologies import parse
        from resnet_jax.models.registry import get_variant

        found = re.fullmatch(r"(\w+)((?:\+\w+)*)(?:/([1-9]\d*))?@(\S+)", text)
        if found is None:
            raise UserError(f"{text!r} must be NET[+FIELD...][/IMAGES]@CHIP:SIDES, as resnet50@v5e:2x4")
        net, fields, topology = found[1], tuple(found[2].split("+")[1:]), found[4]
        get_variant(net)
        parse(topology)
        for field in fields:
            if field not in FIELDS:
                raise unknown_name("field", field, FIELDS)
        return cls(net, fields, int(found[3] or paper_batch(net)), topology)


def records() -> dict[str, dict[str, Any]]:
    """Returns what was compiled, by row."""
    return read_json_object(RECORDS) if RECORDS.exists() else {}


def measure(rows: Sequence[str], again: bool, limit: int) -> dict[str, dict[str, Any]]:
    """Returns what each row's step takes; see `compiled_cost`.

    Args:
      rows: see the module.
      again: whether those that are known are compiled again.
      limit: CPU seconds after which a compilation is given up, and its record says so.
    """
    import jax

    jax.config.update("jax_platforms", "cpu")
    for row in rows:
        Row.parse(row)
    measured = measured_on()  # of this checkout, before its records change
    for row in rows:
        if row in records() and not again:
            continue
        note(f"compiling {row}")
        try:
            found = answer(["-m", "benchmarks.slices", row], row, cpu_seconds=limit)
        except subprocess.TimeoutExpired:
            found = {"limit": limit}
        known = records() | {row: found | {"measured": measured}}
        write_file(RECORDS, json.dumps(known, indent=1, sort_keys=True) + "\n")
    known = records()
    return {row: known[row] for row in rows}


def compiled_cost(text: str) -> dict[str, Any]:
    """Compiles a row's step, in bfloat16 unless it has another dtype, and returns what one step takes of each chip.

    Returns:
      `peak_bytes`, `flops`, `memory_bytes`, `cycles` and `inner_loops`, see `cost.Cost`; number and bytes of the
      collectives, and whether each has other work beside it in the schedule; or the GiB that it `needs` and a chip
      `has`; `cpu_seconds` to lower and compile it.
    """
    import jax

    from resnet_jax.aot.cost import cost_of
    from resnet_jax.aot.programs import OutOfMemory, compile_program
    from resnet_jax.aot.topologies import find

    jax.config.update("jax_enable_compilation_cache", False)
    jax.config.update("jax_platforms", "cpu")
    row = Row.parse(text)
    chip, devices = find(row.topology)
    began = time.process_time()
    lowered, steps = (_flax_step if "flax" in row.fields else _our_step)(row, devices)
    try:
        compiled = compile_program(lowered)
        seconds = time.process_time() - began
        cost = cost_of(compiled, chip, steps)
    except OutOfMemory as error:
        return {"needs": error.used, "has": error.capacity, "cpu_seconds": time.process_time() - began}
    return {
        "peak_bytes": cost.peak_bytes, "flops": cost.flops, "memory_bytes": cost.memory_bytes, "cycles": cost.cycles,
        "inner_loops": cost.inner_loops, "collectives": len(cost.collectives),
        "collective_bytes": sum(one.bytes for one in cost.collectives),
        "overlapped": all(one.overlapped for one in cost.collectives), "cpu_seconds": seconds,
    }  # fmt: skip


def _our_step(row: Row, devices: Sequence[Any]) -> tuple[Any, int]:
    """Returns the lowered step that `train` would dispatch, and how many steps one dispatch makes."""
    from configs import cifar10, imagenet
    from resnet_jax.aot.programs import lower_steps

    cifar = row.net.startswith("cifar_")
    config = cifar10.get_config(row.net.removeprefix("cifar_")) if cifar else imagenet.get_config(row.net)
    config.dtype, config.batch_size = "bfloat16", row.images * len(devices)
    for field in row.fields:
        config.update_from_flattened_dict(FIELDS[field])
    if "one_group" in row.fields:
        config.model.bn_group_size = row.images
    programs = lower_steps(config, devices, evaluation=False)
    return programs.train, programs.steps


def _flax_step(row: Row, devices: Sequence[Any]) -> tuple[Any, int]:
    import jax
    import jax.numpy as jnp

    from benchmarks.peers.flax_example import Net, State, make_optimizer, train_step
    from benchmarks.resnet_jax_step import peer_fields
    from resnet_jax.models.registry import create_model, get_variant
    from resnet_jax.training.distributed import batch_sharded, make_mesh, replicated

    mesh, size, batch = make_mesh(devices), get_variant(row.net).image_size, row.images * len(devices)
    model = Net(**peer_fields(create_model(row.net)), dtype="float32" if "float32" in row.fields else "bfloat16")
    images = jax.ShapeDtypeStruct((batch, size, size, 3), jnp.float32)

    def init() -> State:
        variables = model.init(jax.random.key(0), jnp.zeros((1, size, size, 3)), train=False)
        optimizer = make_optimizer(1e-4, 0.1, 0.9)
        return State.create(apply_fn=model.apply, tx=optimizer, **variables)

    shared, everywhere = batch_sharded(mesh), replicated(mesh)
    step = jax.jit(train_step, donate_argnums=0, in_shardings=(everywhere, shared, shared), out_shardings=everywhere)
    return step.lower(jax.eval_shape(init), images, jax.ShapeDtypeStruct((batch,), jnp.int32)), 1


def report(found: Mapping[str, dict[str, Any]]) -> str:
    """Returns the table, and where and when its rows were compiled."""
    from resnet_jax.aot.topologies import parse

    rows = {Row.parse(text): record for text, record in found.items()}
    headings, cells = [*HEADINGS, *EXCHANGE, "CPU s to compile"], [_cells(row, record) for row, record in rows.items()]
    if all(math.prod(parse(row.topology)[1]) == 1 for row in rows):  # they exchange nothing
        headings = [*HEADINGS, headings[-1]]
        cells = [[*one[: len(HEADINGS)], one[-1]] for one in cells]
    return "\n\n".join([table(headings, cells), _measured(found)])


def _measured(found: Mapping[str, dict[str, Any]]) -> str:
    rows: dict[str, list[str]] = {}
    for row, record in found.items():
        rows.setdefault(record["measured"], []).append(row)
    most = max(rows, key=lambda sentence: len(rows[sentence]))
    rest = [f"{sentence[:-1]}: {', '.join(rows[sentence])}." for sentence in rows if sentence != most]
    return " ".join([most, *rest]).replace("Measured on", "Compiled on")  # no chip took part


def _cells(row: Row, record: dict[str, Any]) -> list[str]:
    """Returns the cells of a row, "-" for what is not known."""
    from resnet_jax.aot.topologies import GIB, parse

    chip, sides = parse(row.topology)
    devices = math.prod(sides)
    cells = dict.fromkeys([*HEADINGS, *EXCHANGE, "CPU s"], "-")
    cells |= {"net": row.net, "with": ", ".join(row.fields) or "-", "chips": row.topology,
              "images": f"{row.images * devices:,}"}  # fmt: skip
    if "limit" in record:
        return list((cells | {"CPU s": f"more than {record['limit']}"}).values())
    cells["CPU s"] = f"{record['cpu_seconds']:.0f}"
    if "needs" in record:
        return list((cells | {"memory, GiB": f"{record['needs']:.2f} of {record['has']:.2f}: too much"}).values())
    cells["memory, GiB"] = f"{record['peak_bytes'] / GIB:.2f}"
    links, estimate = link_seconds(row, record), step_seconds(row, record)
    if estimate:
        cells["estimated, ms"] = f"{1e3 * estimate:.1f}"
    if devices > 1:
        cells |= {"collectives": str(record["collectives"]), "MB": f"{record['collective_bytes'] / 1e6:.1f}",
                  "on the links, ms": f"{1e3 * links:.2f}"}  # fmt: skip
        if estimate:
            cells["efficiency, %"] = " - ".join(f"{100 * share:.1f}" for share in efficiency(estimate, links))
    # Operations and bytes of a loop inside the step are counted once.
    if record["flops"] and max(record["inner_loops"], default=1) == 1:
        arithmetic, moving = record["flops"] / chip.flops, record["memory_bytes"] / chip.bandwidth
        bound = max(arithmetic, moving)
        # Nothing of the exchange is beside the computation, unless the schedule says so.
        least = max(bound, links) if record["overlapped"] else bound + links
        cells |= {"GFLOP": f"{record['flops'] / 1e9:,.0f}", "GB moved": f"{record['memory_bytes'] / 1e9:.2f}",
                  "roofline, ms": f"{1e3 * bound:.2f}", "bound by": "arithmetic" if arithmetic > moving else "memory",
                  "images/s at most": f"{row.images * devices / least:,.0f}"}  # fmt: skip
    return list(cells.values())


def efficiency(computing: float, links: float) -> tuple[float, float]:
    """Returns the share of a step's time in which a chip computes, with no exchange beside it, and with all that fits.

    Args:
      computing: seconds of a step without its exchange.
      links: seconds of the exchange.
    """
    return computing / (computing + links), computing / max(computing, links)


def step_seconds(row: Row, record: Mapping[str, Any]) -> float | None:
    """Returns what the compiler estimates for a step without its exchange; None if it does not."""
    from resnet_jax.aot.topologies import parse

    clock = parse(row.topology)[0].clock
    return record["cycles"] / clock if clock and record["cycles"] else None


def link_seconds(row: Row, record: Mapping[str, Any]) -> float:
    """Returns the seconds of a step's collectives by rings over the chips' links."""
    from resnet_jax.aot.cost import ring_seconds
    from resnet_jax.aot.topologies import parse

    chip, sides = parse(row.topology)
    return ring_seconds(math.prod(sides), record["collective_bytes"], chip.link)


if __name__ == "__main__":
    print(json.dumps(compiled_cost(sys.argv[1])))
