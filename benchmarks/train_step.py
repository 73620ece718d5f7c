"""Measures images per second of the training and the evaluation step, ours and what a user would pick, in turn.

    python -m benchmarks train_step --model=cifar_resnet20,cifar_resnet20@8 --peer=torch,flax_example,xla --write
    python -m benchmarks eval --model=cifar_resnet20 --peer=torch --json

All have the same weights, batches and optimiser (SGD, momentum 0.9, decay 1e-4 on every parameter). Before they are
timed, single steps from the same weights must agree.
"""

import os
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import numpy as np

from benchmarks import hardware_peak, note, resnet_jax_step
from benchmarks.docs_tables import table
from benchmarks.paired_timing import ratio, time_in_turn
from benchmarks.peers import Implementation, Task, flax_example, pytorch
from resnet_jax.errors import UserError, unknown_name
from resnet_jax.models.registry import create_model
from resnet_jax.training.stepper import Stepper
from resnet_jax.training.trainer import Trainer

#: What each peer's implementations are made by. "xla" is our own step with XLA's layers; "whole_batch" is our own with
#: batch norm over the whole batch, to be compared with `--bn_group_size`.
PEERS: dict[str, Callable[[Trainer, Task, Sequence[str]], list[Implementation]]] = {
    "torch": lambda trainer, task, variants: pytorch.implementations(task, variants),
    "flax_example": lambda trainer, task, variants: flax_example.implementations(task),
    "xla": lambda trainer, task, variants: [resnet_jax_step.xla_implementation(trainer)],
    "whole_batch": lambda trainer, task, variants: [resnet_jax_step.whole_batch_implementation(trainer)],
}

#: Training steps that are compared, each from the same weights so that rounding cannot grow from step to step. The
#: second has the momentum of the first.
CHECKED_STEPS = 2
#: Evaluation batches that are compared.
CHECKED_BATCHES = 4


class Differences(NamedTuple):
    """How far two implementations differ, or may.

    Attributes:
      loss: relative difference of a loss.
      update: norm of the difference of all parameters' updates, divided by the norm of ours. Rounding alone comes to
        0.02 in float32 in the first step of ResNet-50 at 112 pixels, of 16 images.
      scale: how much longer or shorter their update is, along ours: another rate or momentum shows here.
      decay: difference of the weight decay that the updates show, by the decay asked for.
    """

    loss: float = 0.0
    update: float = 0.0
    scale: float = 0.0
    decay: float = 0.0


TOLERANCE = {"float32": Differences(2e-5, 0.1, 5e-3, 0.1), "bfloat16": Differences(2e-2, 0.5, 0.1, 0.5)}

#: GPUs round what float32 products take to TF32's 11 bits, and TPUs to bfloat16's 8, unless told otherwise.
ROUNDED = {"gpu": Differences(2e-3, 0.2, 2e-2, 0.2), "tpu": TOLERANCE["bfloat16"]}


def _check_peer(peer: str) -> None:
    """Raises UserError for a peer that is unknown or not installed."""
    if peer not in PEERS:
        raise unknown_name("peer", peer, PEERS)
    if peer == "torch":
        pytorch.import_torch()


def check(
    kind: str, mine: Implementation, theirs: Sequence[Implementation], task: Task, platform: str = "cpu"
) -> Differences:
    """Compares each of `theirs` with `mine` and returns the largest differences.

    Args:
      kind: "train_step" or "eval".
      mine, theirs: the implementations.
      task: what they compute; its parameters are those that every step is taken from.
      platform: of the devices.

    Raises:
      UserError: if one does not compute the same.
    """
    dtype = task.dtype
    tolerance = ROUNDED.get(platform, TOLERANCE[dtype]) if dtype == "float32" else TOLERANCE[dtype]
    worst = Differences()

    def compare(name: str, number: int, found: Differences) -> None:
        nonlocal worst
        worst = Differences(*map(max, worst, found))
        for what, difference, most in zip(Differences._fields, found, tolerance, strict=True):
            if not difference <= most:
                raise UserError(
                    f"{name} does not compute the same: {what} differs by {difference:.1e} at step {number}"
                )

    if kind == "eval":
        expected = mine.evaluate(CHECKED_BATCHES)
        for one in theirs:
            for number, (a, b) in enumerate(zip(expected, one.evaluate(CHECKED_BATCHES), strict=True), start=1):
                compare(one.name, number, Differences(abs(a - b) / abs(a)))
        return worst
    params = task.variables["params"]
    steps = [mine.step_from(params) for _ in range(CHECKED_STEPS)]
    for one in theirs:
        for number, ours in enumerate(steps, start=1):
            compare(one.name, number, _differences(ours, one.step_from(params), task, number))
    return worst


def _differences(ours: tuple[float, dict], theirs: tuple[float, dict], task: Task, number: int) -> Differences:
    """Returns how far the `number`th steps from the same parameters are apart.

    Rounding errors have no direction, so that they hardly show along our update, nor along the parameters themselves.
    There the weight decay shows, which is far too small to change the norm of an update.
    """
    flat = [np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(tree)]).astype(np.float64)
            for tree in (task.variables["params"], ours[1], theirs[1])]  # fmt: skip
    start, update, difference = flat[0], flat[1] - flat[0], flat[2] - flat[1]
    # Of a step with momentum m, the decay counts 1 + m + ... times.
    times = sum(task.momentum**k for k in range(number))
    one_decay = task.learning_rate * task.weight_decay * times * (start @ start)
    return Differences(
        abs(ours[0] - theirs[0]) / abs(ours[0]),
        float(np.linalg.norm(difference) / np.linalg.norm(update)),
        float(abs(difference @ update) / (update @ update)),
        float(abs(difference @ start) / one_decay),
    )


def measure(
    kind: str, models: Sequence[str], peers: Sequence[str], batch_size: int = 0, image_size: int = 0,
    dtype: str = "float32", variants: Sequence[str] = (), seconds: float = 3, rounds: int = 10, bn_group_size: int = 0,
) -> dict[str, Any]:  # fmt: skip
    """Returns `rows`, one for each net and peer, and the lowest `ratio` of our images per second to the peer's.

    Args:
      kind: "train_step" or "eval".
      models: names of nets, each with `@` and the side of its images in pixels if that is another.
      peers: of `PEERS`.
      batch_size: 0: 128 for CIFAR's nets, 32 for ImageNet's.
      image_size: in pixels, if a model names none; 0: the size that a net was published for.
      dtype: "float32" or "bfloat16".
      variants: of torch, see `pytorch.implementations`; of several, the fastest counts.
      seconds, rounds: see `time_in_turn`.
      bn_group_size: of our nets; 0: the whole batch, as the peers'.
    """
    if "torch" in peers:
        # JAX takes three quarters of a GPU's memory by default: too little would be left for PyTorch.
        os.environ.setdefault("XLA_PYTHON_CLIENT_MEM_FRACTION", "0.5")
    if bn_group_size and set(peers) - {"whole_batch"}:
        raise UserError("--bn_group_size is for --peer=whole_batch: the other peers normalise over the whole batch")
    sized = [resnet_jax_step.name_and_size(model, image_size) for model in models]
    for name, _ in sized:
        resnet_jax_step.check_net(name, create_model(name))
    for peer in peers:
        _check_peer(peer)
    limits = hardware_peak.measure_peak(dtype)
    rows: list[dict[str, Any]] = []
    for name, size in sized:
        batch = batch_size or (128 if name.startswith("cifar_") else 32)
        for peer in peers:
            trainer = resnet_jax_step.make_benchmark_trainer(name, batch, size, dtype, bn_group_size=bn_group_size)
            note(f"{kind}: {name} at {trainer.summary.image_size} pixels beside {peer}, batch {batch}, {dtype}")
            stepper = Stepper(trainer)
            mine = resnet_jax_step.implementation(trainer, stepper)
            task = resnet_jax_step.task(trainer)
            theirs = PEERS[peer](trainer, task, variants)
            # Statistics over groups are other numbers than those over the batch.
            found_equal = Differences() if bn_group_size else check(kind, mine, theirs, task, jax.default_backend())
            # A peer's step is one step; ours may go several to a dispatch.
            unit = resnet_jax_step.steps_per_dispatch(trainer) if kind == "train_step" else 1
            works = {c.name: partial(_work, kind, c, unit) for c in (mine, *theirs)}
            found = time_in_turn(works, seconds, rounds)
            best = max((c.name for c in theirs), key=lambda n: found[n].rate)
            images = unit * batch
            flops = (
                hardware_peak.training_flops(trainer.summary.flops)
                if kind == "train_step"
                else 2 * trainer.summary.flops
            )
            moved = hardware_peak.bytes_accessed(_program(kind, trainer, stepper)) / batch
            rows.append({
                "model": name, "peer": best, "batch_size": batch, "image_size": trainer.summary.image_size,
                "dtype": dtype, "ratio": ratio(found["resnet_jax"].rates, found[best].rates),
                "differences": found_equal._asdict(),
                "implementations": {n: {
                    "images_per_second": r.rate * images, "least": r.spread[0] * images, "most": r.spread[1] * images,
                    "cpu_seconds_per_step": r.cpu / unit, "flops_utilisation": r.rate * images * flops / limits.flops,
                } for n, r in found.items()},
                "flops_per_image": flops, "bytes_per_image": moved,
                "bandwidth_share": found["resnet_jax"].rate * images * moved / limits.bandwidth,
                "peak": {"flops": limits.flops, "bytes_per_second": limits.bandwidth},
            })  # fmt: skip
            jax.clear_caches()
    return {"ratio": min(row["ratio"] for row in rows), "rows": rows}


def _work(kind: str, one: Implementation, unit: int, count: int) -> list[float]:
    return (one.losses if kind == "train_step" else one.evaluate)(count * unit)


def _program(kind: str, trainer: Any, stepper: Stepper) -> Any:
    """Returns the compiled program of one step, which `check` has run."""
    if kind == "train_step":
        return next(program for shapes, program in stepper.compiled.items() if shapes[0][0] == 1)
    pipeline, state = trainer.pipeline, trainer.init()
    indices = pipeline.train_inputs(0, 1)[0]
    lowered = trainer.eval_step.lower(state.tested_variables, pipeline.train, indices, indices.astype("float32"))
    return lowered.compile()


def report(found: Mapping[str, Any]) -> str:
    """Returns the table, and what was measured beside it."""
    rows = found["rows"]
    cells = []
    for row in rows:
        for name, one in row["implementations"].items():
            mine = name == "resnet_jax"
            cells.append([
                row["model"], str(row["image_size"]), name, str(row["batch_size"]), row["dtype"],
                f"{one['images_per_second']:,.1f}",
                f"{one['least']:,.1f} - {one['most']:,.1f}", f"{one['cpu_seconds_per_step']:.3f}",
                f"{100 * one['flops_utilisation']:.1f}",
                f"{row['bytes_per_image'] / 1e6:,.1f}" if mine else "-",
                f"{100 * row['bandwidth_share']:.0f}" if mine else "-",
                f"{row['ratio']:.2f}" if name == row["peer"] else "-",
            ])  # fmt: skip
    headings = ["net", "pixels", "step of", "batch", "dtype", "images/s (median)", "least - most", "CPU s a step",
                "% of the largest matrix product", "MB an image", "% of copy bandwidth", "ours / theirs"]  # fmt: skip
    peak = rows[0]["peak"]
    worst = {name: max(row["differences"][name] for row in rows) for name in Differences._fields}
    return (
        f"{table(headings, cells)}\n\nMeasured peak: {peak['flops'] / 1e9:,.0f} GFLOP/s, "
        f"{peak['bytes_per_second'] / 1e9:,.1f} GB/s. From the same weights, losses differ by {worst['loss']:.1e} and "
        f"updates by {worst['update']:.1e} at most, relative. Bytes are XLA's count, which sees no caches and "
        "nothing inside a compiled convolution."
    )
