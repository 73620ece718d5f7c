"""Compiles training steps for slices of TPUs that are not there, and a minimal Flax step beside them.

    python -m benchmarks slices --write
    python -m benchmarks slices --rows=resnet50@v5e:4x4,cifar_resnet110@v6e:1x1

Each program has a process of its own, since compiling takes gigabytes.
"""

import json
import math
import sys
from collections.abc import Sequence
from typing import Any

from benchmarks import note
from benchmarks.docs_tables import table
from benchmarks.local_processes import answer
from resnet_jax.errors import UserError

#: Images of one chip, in the papers' nets for CIFAR and for ImageNet.
CIFAR_BATCH, IMAGENET_BATCH = 128, 256

ROWS = (
    *(f"resnet50@v5e:{sides}" for sides in ("1x1", "2x4", "8x8", "16x16")),
    *(f"{net}@v5e:1x1" for net in ("resnet18", "resnet101", "cifar_resnet20", "cifar_resnet110")),
    "cifar_resnet20@v5e:2x4", "resnet50@v4:2x2x1", "resnet50@v5p:2x2x1", "resnet50@v6e:2x2",
)  # fmt: skip

#: Rows beside which the minimal Flax step stands.
BESIDE = ("resnet50@v5e:1x1", "resnet50@v5e:2x4")


def measure(rows: Sequence[str], peers: Sequence[str], dtype: str) -> list[dict[str, Any]]:
    """Returns what each step takes, as `python -m resnet_jax compile --json` says it.

    Args:
      rows: NET@CHIP:SIDES, with `IMAGENET_BATCH` or `CIFAR_BATCH` images on each chip.
      peers: rows for which the minimal Flax step is compiled, too.
      dtype: of the computation.
    """
    from resnet_jax.aot.topologies import parse

    found = []
    for row in rows:
        net, topology = _parts(row)
        note(f"compiling {net} for {topology}")
        cifar = net.startswith("cifar_")
        batch = (CIFAR_BATCH if cifar else IMAGENET_BATCH) * math.prod(parse(topology)[1])
        config = f"configs/cifar10.py:{net.removeprefix('cifar_')}" if cifar else f"configs/imagenet.py:{net}"
        command = ["-m", "resnet_jax", "compile", f"--config={config}", f"--topology={topology}", "--noevaluation",
                   "--json", f"--config.dtype={dtype}", f"--config.batch_size={batch}"]  # fmt: skip
        found.append({"step": "ours", **answer(command, row)})
        if row in peers:
            note(f"compiling the Flax step of {net} for {topology}")
            command = ["-m", "benchmarks.slices", net, topology, str(batch), dtype]
            found.append({"step": "flax_example", **answer(command, row)})
    return found


def flax_cost(net: str, topology: str, batch: int, dtype: str) -> dict[str, Any]:
    """Returns what the minimal Flax step takes, as `compile --json` does."""
    import jax
    import jax.numpy as jnp

    from benchmarks.peers.flax_example import Net, State, make_optimizer, train_step
    from benchmarks.resnet_jax_step import peer_fields
    from resnet_jax.aot.cost import cost_of
    from resnet_jax.aot.programs import compile_program
    from resnet_jax.aot.topologies import find
    from resnet_jax.models.registry import create_model, get_variant
    from resnet_jax.training.distributed import batch_sharded, make_mesh, replicated

    jax.config.update("jax_platforms", "cpu")
    chip, devices = find(topology)
    mesh, size = make_mesh(devices), get_variant(net).image_size
    model = Net(**peer_fields(create_model(net)), dtype=jnp.dtype(dtype))
    images = jax.ShapeDtypeStruct((batch, size, size, 3), jnp.float32)

    def init() -> State:
        variables = model.init(jax.random.key(0), jnp.zeros((1, size, size, 3)), train=False)
        optimizer = make_optimizer(1e-4, 0.1, 0.9)
        return State.create(apply_fn=model.apply, tx=optimizer, **variables)

    shared, everywhere = batch_sharded(mesh), replicated(mesh)
    step = jax.jit(train_step, donate_argnums=0, in_shardings=(everywhere, shared, shared), out_shardings=everywhere)
    lowered = step.lower(jax.eval_shape(init), images, jax.ShapeDtypeStruct((batch,), jnp.int32))
    cost = cost_of(compile_program(lowered), chip)
    return {"model": net, "topology": topology, "devices": len(devices), "batch_size": batch, "dtype": dtype,
            "training_step": cost.to_json()}  # fmt: skip


def report(rows: Sequence[dict[str, Any]]) -> str:
    """Returns the table."""
    headings = ["net", "step", "chips", "images", "memory, GiB", "GFLOP", "GB moved", "roofline, ms", "bound by",
                "estimated, ms", "all-reduces", "MB", "on the links, ms", "images/s",
                "CPU s to compile"]  # fmt: skip
    return table(headings, [_cells(row) for row in rows])


def _cells(row: dict[str, Any]) -> list[str]:
    from resnet_jax.aot.cost import ring_seconds
    from resnet_jax.aot.topologies import GIB, parse

    cost, (chip, _), devices = row["training_step"], parse(row["topology"]), row["devices"]
    size = sum(one["bytes"] for one in cost["collectives"])
    links = ring_seconds(devices, size, chip.link)
    # Nothing of the exchange is beside the computation, unless the schedule says so.
    beside = all(one["overlapped"] for one in cost["collectives"])
    bound = cost["bound_seconds"]
    least = None if bound is None else max(bound, links) if beside else bound + links
    estimate = f"{1e3 * cost['cycles'] / chip.clock:.1f}" if chip.clock and cost["cycles"] else "-"
    return [
        row["model"], row["step"], row["topology"], f"{row['batch_size']:,}", f"{cost['peak_bytes'] / GIB:.2f}",
        f"{cost['flops'] / 1e9:,.0f}", f"{cost['memory_bytes'] / 1e9:.2f}", f"{1e3 * (bound or 0):.2f}",
        cost["bound_by"] or "-", estimate, str(len(cost["collectives"])), f"{size / 1e6:.1f}", f"{1e3 * links:.2f}",
        f"{row['batch_size'] / least:,.0f}" if least else "-", f"{cost['compile_cpu_seconds']:.0f}",
    ]  # fmt: skip


def _parts(row: str) -> tuple[str, str]:
    net, at, topology = row.partition("@")
    if not at:
        raise UserError(f"{row!r} must be NET@CHIP:SIDES, as resnet50@v5e:2x4")
    return net, topology


if __name__ == "__main__":
    print(json.dumps(flax_cost(sys.argv[1], sys.argv[2], int(sys.argv[3]), sys.argv[4])))
