"""Measures memory and compile time of each net's training step at its paper's batch; nothing is run.

    python -m benchmarks memory --write
    python -m benchmarks memory --model=cifar_resnet1202 --ways=scan --write

Each net has a process of its own, since compiling takes more memory than the program.
"""

import json
import resource
import subprocess
import sys
import time
from collections.abc import Sequence
from typing import Any

from benchmarks import note
from benchmarks.docs_tables import table
from benchmarks.local_processes import answer
from resnet_jax.errors import unknown_name

#: Fields of the net that trade time for memory and for the size of the program.
WAYS: dict[str, dict[str, bool]] = {
    "plain": {},
    "remat": {"remat": True},
    "scan": {"scan": True},
    "scan+remat": {"scan": True, "remat": True},
}

#: The 2015 paper's nets whose program is compiled in tolerable time on a laptop (plain ones keep as much as residual),
#: and those that are too deep for it unrolled.
NETS = (
    *(f"cifar_resnet{depth}" for depth in (20, 32, 44, 56, 110)),
    *(f"resnet{depth}" for depth in (18, 34, 50, 101, 152)),
)
DEEP = ("cifar_resnet110", "cifar_preact_resnet164", "cifar_preact_resnet1001", "cifar_resnet1202")


def paper_batch(name: str) -> int:
    """Returns the size of a training batch in the papers: 128 for CIFAR, 256 for ImageNet."""
    return 128 if name.startswith("cifar_") else 256


def compiled_cost(name: str, way: str, batch_size: int = 0) -> dict[str, Any]:
    """Returns what compiling one training step takes, and what the program will take.

    Args:
      name: of a net.
      way: a key of `WAYS`.
      batch_size: 0: the paper's.

    Returns:
      `kept`: see `kept_bytes`; `trace_seconds`, `compile_seconds`; `arguments` (parameters, momentum, data) and
      `temporary`, bytes on the device; `program`, bytes of its text; `peak_host`, bytes that this process had at most.
    """
    import jax
    import jax.numpy as jnp
    import numpy as np

    from resnet_jax.config import base_config, model_overrides
    from resnet_jax.models.registry import create_model, get_variant
    from resnet_jax.tasks.classification import Classification
    from resnet_jax.training.distributed import make_mesh
    from resnet_jax.training.step import init_state, make_update

    jax.config.update("jax_enable_compilation_cache", False)
    batch, variant = batch_size or paper_batch(name), get_variant(name)
    config = base_config()
    config.model.name, config.batch_size = name, batch
    config.model.update(WAYS[way])
    model = create_model(name, **model_overrides(config))
    size = variant.image_size
    update = make_update(
        model, Classification.from_config(config, model.num_classes), config, make_mesh(jax.devices()[:1])
    )
    state = jax.eval_shape(lambda: init_state(model, config, (size, size, 3)))
    images = jax.ShapeDtypeStruct((batch, size, size, 3), jnp.float32)
    labels = jax.ShapeDtypeStruct((batch,), np.int32)
    key = jax.eval_shape(lambda: jax.random.key(0))
    began = time.perf_counter()
    lowered = jax.jit(update, donate_argnums=0).lower(state, images, labels, key)
    traced = time.perf_counter()
    compiled = lowered.compile()
    ended = time.perf_counter()
    memory: Any = compiled.memory_analysis()
    return {
        "model": name, "way": way, "batch_size": batch, "kept": kept_bytes(model, state, images),
        "trace_seconds": traced - began, "compile_seconds": ended - traced, "arguments": memory.argument_size_in_bytes,
        "temporary": memory.temp_size_in_bytes, "program": len(lowered.as_text()),
        "peak_host": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
    }  # fmt: skip


def kept_bytes(model: Any, state: Any, images: Any) -> int:
    """Returns the bytes of activations that the forward pass keeps for the backward pass, before any compiler.

    Args:
      model, state: of a training step.
      images: their shape, (batch, height, width, channels); what is kept and has the batch in it is an activation.
    """
    import jax

    def residuals(params: Any, batch_stats: Any, images: Any) -> list[Any]:
        def logits(params: Any) -> Any:
            variables = {"params": params, "batch_stats": batch_stats}
            return model.apply(variables, images, train=True, mutable=["batch_stats"])[0]

        _, pullback = jax.vjp(logits, params)
        once = {id(leaf): leaf for leaf in jax.tree.leaves(pullback)}.values()
        return [leaf for leaf in once if images.shape[0] in leaf.shape[:3]]  # behind units of a loop, and groups

    found = jax.eval_shape(residuals, state.params, state.batch_stats, images)
    return sum(leaf.size * leaf.dtype.itemsize for leaf in found)


def measure(nets: Sequence[str], ways: Sequence[str], batch_size: int, limit: float) -> list[dict[str, Any]]:
    """Returns one row for each net and way.

    Args:
      nets: their names.
      ways: keys of `WAYS`.
      batch_size: 0: the papers'.
      limit: seconds after which a compilation is given up, and its row says so.
    """
    rows = []
    for name in nets:
        for way in ways:
            if way not in WAYS:
                raise unknown_name("way", way, WAYS)
            note(f"compiling {name}, {way}")
            try:
                command = ["-m", "benchmarks.memory", name, way, str(batch_size)]
                rows.append(answer(command, f"{name}, {way}", timeout=limit))
            except subprocess.TimeoutExpired:
                rows.append({"model": name, "way": way, "batch_size": batch_size or paper_batch(name), "limit": limit})
    return rows


def report(rows: Sequence[dict[str, Any]]) -> str:
    """Returns the table."""
    cells = []
    for row in rows:
        head = [row["model"], row["way"], str(row["batch_size"])]
        if "limit" in row:
            cells.append([*head, *["-"] * 4, f"more than {row['limit']:.0f}", "-"])
            continue
        gib = [f"{row[field] / 2**30:.2f}" for field in ("arguments", "kept", "temporary")]
        seconds = row["trace_seconds"] + row["compile_seconds"]
        cells.append([*head, *gib, f"{row['program'] / 1e6:.1f}", f"{seconds:.0f}",
                      f"{row['peak_host'] / 2**30:.1f}"])  # fmt: skip
    headings = ["net", "way", "batch", "state and batch, GiB", "kept for the backward pass, GiB",
                "allocated on CPU, GiB", "program, MB of text",
                "s to trace and compile", "GiB of host memory to compile"]  # fmt: skip
    return table(headings, cells)


if __name__ == "__main__":
    print(json.dumps(compiled_cost(sys.argv[1], sys.argv[2], int(sys.argv[3]))))
