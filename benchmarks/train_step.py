"""Images a second of the training step and of the evaluation step: ours beside what a user would pick, in turn.

    python -m benchmarks train_step --model=cifar_resnet20,cifar_resnet20@8 --peer=torch,flax_example,xla --write
    python -m benchmarks eval --model=cifar_resnet20 --peer=torch --json

All have the same weights, batches and optimiser (SGD, momentum 0.9, decay 1e-4 on every parameter), and must come to
the same losses before they are timed.
"""

import json
from collections.abc import Callable, Sequence
from typing import Any

import jax

from benchmarks import hardware_peak, resnet_jax_step
from benchmarks.docs_tables import table
from benchmarks.paired_timing import contest, ratio
from benchmarks.peers import Contestant
from resnet_jax.errors import UserError, unknown_name
from resnet_jax.models.registry import create_model
from resnet_jax.training.stepper import Stepper
from resnet_jax.training.trainer import Trainer

#: "xla" is our own step with XLA's layers; "whole_batch" is our own with batch norm over the whole batch, which
#: `--bn_group_size` is held against.
PEERS = ("torch", "flax_example", "xla", "whole_batch")

#: Steps of which the losses are compared, and by how much they may differ, relative: the first step's loss, and any
#: later one's. Rounding grows from step to step (docs/training.md; 2e-5 after four steps of ResNet-20). Another weight,
#: rate or momentum shows; a decay of 1e-4 is too small to show in so few steps.
CHECKED_STEPS = 4
TOLERANCE = {"float32": (2e-5, 5e-4), "bfloat16": (2e-2, 1e-1)}

#: GPUs round what float32 products take to TF32's 11 bits, and TPUs to bfloat16's 8, unless they are told otherwise.
ROUNDED = {"gpu": (2e-3, 2e-2), "tpu": TOLERANCE["bfloat16"]}


def contestants_of(peer: str, trainer: Trainer, variants: Sequence[str]) -> list[Contestant]:
    """Returns the peer's contestants, see `PEERS`.

    Raises:
      UserError: for a peer that is unknown or not installed.
    """
    _check_peer(peer)
    if peer == "xla":
        return [resnet_jax_step.contestant_by_xla(trainer)]
    if peer == "whole_batch":
        return [resnet_jax_step.contestant_of_whole_batch(trainer)]
    task = resnet_jax_step.task(trainer)
    if peer == "torch":
        from benchmarks.peers import pytorch

        return pytorch.contestants(task, variants)
    from benchmarks.peers import flax_example

    return flax_example.contestants(task)


def _check_peer(peer: str) -> None:
    if peer not in PEERS:
        raise unknown_name("peer", peer, PEERS)
    if peer == "torch":
        from benchmarks.peers import pytorch

        pytorch.import_torch()


def check(kind: str, mine: Contestant, theirs: Sequence[Contestant], dtype: str, platform: str = "cpu") -> float:
    """The largest relative difference of a loss between us and any of them, over the first steps.

    Raises:
      UserError: if they do not compute the same.
    """
    first, later = TOLERANCE[dtype] if dtype != "float32" else ROUNDED.get(platform, TOLERANCE[dtype])
    expected = _take(kind, mine, CHECKED_STEPS)
    worst = 0.0
    for one in theirs:
        for step, (a, b) in enumerate(zip(expected, _take(kind, one, CHECKED_STEPS), strict=True)):
            difference = abs(a - b) / abs(a)
            worst = max(worst, difference)
            if not difference <= (first if step == 0 or kind == "eval" else later):
                raise UserError(f"{one.name} does not compute the same: loss {b} at step {step + 1}, ours {a}")
    return worst


def _take(kind: str, one: Contestant, count: int) -> list[float]:
    return (one.losses if kind == "train_step" else one.evaluate)(count)


def measure(
    kind: str, models: Sequence[str], peers: Sequence[str], batch_size: int, image_size: int, dtype: str,
    variants: Sequence[str], seconds: float, rounds: int, note: Callable[[str], None], bn_group_size: int = 0,
) -> list[dict[str, Any]]:  # fmt: skip
    """One row for each net and peer.

    Args:
      kind: "train_step" or "eval".
      models: names of nets, each with `@` and a size of images in pixels if that is another.
      peers: of `PEERS`.
      batch_size: 0: 128 for CIFAR's nets, 32 for ImageNet's.
      image_size: in pixels, where a model names none; 0: that which a net was published for.
      dtype: "float32" or "bfloat16".
      variants: of torch, see `pytorch.contestants`; of several, the fastest counts.
      seconds, rounds: see `contest`.
      note: told what is being measured.
      bn_group_size: of our nets; 0: the whole batch, as the peers'.
    """
    if bn_group_size and set(peers) - {"whole_batch"}:
        raise UserError("--bn_group_size is for --peer=whole_batch: the other peers normalise over the whole batch")
    sized = [resnet_jax_step.name_and_size(model, image_size) for model in models]
    for name, _ in sized:
        resnet_jax_step.check_net(name, create_model(name))
    for peer in peers:
        _check_peer(peer)
    limits = hardware_peak.measure_roof(dtype)
    rows = []
    for name, size in sized:
        batch = batch_size or (128 if name.startswith("cifar_") else 32)
        for peer in peers:
            trainer = resnet_jax_step.make_benchmark_trainer(name, batch, size, dtype, bn_group_size=bn_group_size)
            note(f"{kind}: {name} at {trainer.summary.image_size} pixels beside {peer}, batch {batch}, {dtype}")
            stepper = Stepper(trainer)
            mine = resnet_jax_step.contestant(trainer, stepper)
            theirs = contestants_of(peer, trainer, variants)
            # Statistics of a group are other numbers than those of a batch.
            difference = 0.0 if bn_group_size else check(kind, mine, theirs, dtype, jax.default_backend())
            # A peer's step is one step; ours may go several to a dispatch.
            unit = resnet_jax_step.steps_per_dispatch(trainer) if kind == "train_step" else 1
            works = {c.name: lambda n, c=c, unit=unit: _take(kind, c, n * unit) for c in (mine, *theirs)}
            found = contest(works, seconds, rounds)
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
                "loss_difference": difference,
                "contestants": {n: {
                    "images_per_second": r.rate * images, "least": r.spread[0] * images, "most": r.spread[1] * images,
                    "cpu_seconds_per_step": r.cpu / unit, "flops_utilisation": r.rate * images * flops / limits.flops,
                } for n, r in found.items()},
                "flops_per_image": flops, "bytes_per_image": moved,
                "bandwidth_share": found["resnet_jax"].rate * images * moved / limits.bandwidth,
                "roof": {"flops": limits.flops, "bytes_per_second": limits.bandwidth},
            })  # fmt: skip
            jax.clear_caches()
    return rows


def _program(kind: str, trainer: Any, stepper: Stepper) -> Any:
    """That of one step, which `check` has run."""
    if kind == "train_step":
        return next(program for (_, shapes), program in stepper.programs.compiled.items() if shapes[0][0] == 1)
    pipeline, state = trainer.pipeline, trainer.init()
    indices = pipeline.train_inputs(0, 1)[0]
    lowered = trainer.eval_step.lower(
        state.params, state.batch_stats, pipeline.train, indices, indices.astype("float32")
    )
    return lowered.compile()


def report(rows: Sequence[dict[str, Any]], as_json: bool) -> str:
    """The table, or one JSON object: `rows`, and of all rows the least `ratio`: our images a second over the peer's."""
    if as_json:
        return json.dumps({"ratio": min(row["ratio"] for row in rows), "rows": list(rows)})
    cells = []
    for row in rows:
        for name, one in row["contestants"].items():
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
    limits, difference = rows[0]["roof"], max(row["loss_difference"] for row in rows)
    return (
        f"{table(headings, cells)}\n\nRoof, measured: {limits['flops'] / 1e9:,.0f} GFLOP/s, "
        f"{limits['bytes_per_second'] / 1e9:,.1f} GB/s. Losses of the first {CHECKED_STEPS} steps differ by "
        f"{difference:.1e} at most, relative. Bytes are XLA's count, which sees no caches and "
        "nothing inside a compiled convolution."
    )
