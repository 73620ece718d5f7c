"""Trains torchvision's Faster R-CNN as configs/bccd.py trains ours, and times a step of both on the same batches.

    python -m benchmarks detectors --data=PATH --weights=CIFAR10_RESNET20 --run=runs/bccd --write

Both have the same shared stages and stage for regions from the same weights, anchors, numbers of proposals and regions,
batches, rates and decay. The run is a finished one of the recipe, of which the record gives our AP50.
"""

import time
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks import note
from benchmarks.docs_tables import table
from benchmarks.paired_timing import ratio, time_in_turn
from benchmarks.peers.torchvision_detector import TorchvisionDetector, import_torchvision
from configs.bccd import get_config
from resnet_jax.data.detection.batches import Batch
from resnet_jax.data.detection.pipeline import BoxPipeline
from resnet_jax.errors import UserError
from resnet_jax.models.detection.faster_rcnn import FasterRCNN
from resnet_jax.tasks.average_precision import Found, Truth, area_under, precision_recall
from resnet_jax.training.distributed import batch_sharded
from resnet_jax.training.load_weights import load_weights
from resnet_jax.training.optimizer import make_schedule, warmup_rate
from resnet_jax.training.run_record import RunRecord
from resnet_jax.training.trainer import Trainer, make_trainer

#: Batches that both are timed on, in turn.
BATCHES = 8


def measure(data: str, weights: str, run: str | None, seconds: float, rounds: int) -> dict[str, Any]:
    """Returns of both the median seconds of a step, their least and most, and AP50 in percent.

    Args:
      data: the folder of BCCD.
      weights: of a cifar_resnet20 trained on CIFAR-10.
      run: a finished run of configs/bccd.py; None: nothing is trained, and only steps are timed.
      seconds, rounds: see `paired_timing.time_in_turn`.

    Raises:
      UserError: without torchvision, and for a run that is not finished.
    """
    import_torchvision()
    config = get_config()
    config.data.folder, config.init_from = data, weights
    result = None
    if run is not None and (result := RunRecord(run).result()) is None:
        raise UserError(f"{run} has no result.json: it is not finished")
    trainer = make_trainer(config, jax.devices()[:1])
    assert isinstance(trainer.pipeline, BoxPipeline) and isinstance(trainer.model, FasterRCNN)
    start = load_weights(weights)

    def peer() -> TorchvisionDetector:
        mean, std, optimizer = start.mean.tolist(), start.std.tolist(), trainer.config.optimizer
        variables = dict(start.variables)
        return TorchvisionDetector(trainer.model, variables, mean, std, optimizer.momentum, optimizer.weight_decay)

    timed = _time(trainer, peer(), seconds, rounds)
    found: dict[str, Any] = {
        name: {"seconds": 1 / one.rate, "least": 1 / one.spread[1], "most": 1 / one.spread[0], "cpu_seconds": one.cpu}
        for name, one in timed.items()
    }
    ours, theirs = timed.values()
    found["speed_ratio"] = ratio(ours.rates, theirs.rates)
    if result is not None:
        found["steps"] = config.steps
        found["resnet_jax"] |= {"ap50": result.metrics["test_ap50"]}
        found["torchvision"] |= _train(trainer, peer())
    return found


def _time(trainer: Trainer, peer: TorchvisionDetector, seconds: float, rounds: int) -> dict[str, Any]:
    batches = [trainer.pipeline.train_inputs(i, 1) for i in range(BATCHES)]
    shared = batch_sharded(trainer.mesh, axis=1)
    sent = [trainer.pipeline.send(batch, shared) for batch in batches]
    box: dict[str, Any] = {"state": trainer.init(), "at": 0}

    def ours(count: int) -> None:
        for _ in range(count):
            inputs = sent[box["at"] % BATCHES]
            box["state"], metrics = trainer.train_step(box["state"], trainer.pipeline.train, inputs)
            box["at"] += 1
        jax.block_until_ready(metrics)

    def theirs(count: int) -> None:
        for i in range(count):
            peer.step(_first(batches[i % BATCHES]), 0.001)

    return time_in_turn({"resnet_jax": ours, "torchvision": theirs}, seconds, rounds)


def _train(trainer: Trainer, peer: TorchvisionDetector) -> dict[str, float]:
    config, pipeline = trainer.config, trainer.pipeline
    schedule, began, cpu = make_schedule(config), time.monotonic(), time.process_time()
    for step in range(config.steps):
        warming = step < config.schedule.warmup_steps
        rate = float(warmup_rate(config, jnp.asarray(step)) if warming else schedule(jnp.asarray(step)))
        loss = peer.step(_first(pipeline.train_inputs(step, 1)), rate)
        if step % 100 == 0:
            note(f"torchvision: step {step} of {config.steps}, loss {loss:.3f}, {time.monotonic() - began:.0f} s")
    cpu_seconds = time.process_time() - cpu
    found: list[Found] = []
    truth: list[Truth] = []
    for inputs, mask in pipeline.test_inputs():
        batch = Batch(*(array[mask > 0] for array in inputs))
        found += peer.find(batch)
        for boxes, scale, labels, ignored, areas in zip(batch.boxes, batch.scales, batch.labels, batch.ignored,
                                                        batch.areas, strict=True):  # fmt: skip
            there = labels >= 0
            truth.append(Truth((boxes / scale[[1, 0, 1, 0]])[there], labels[there], ignored[there], areas[there]))
    classes = range(pipeline.num_classes)
    areas_under = [area_under(precision_recall(found, truth, label)) for label in classes]
    return {"ap50": 100 * float(np.mean(areas_under)), "training_cpu_seconds": cpu_seconds}


def _first(batch: Any) -> Batch:
    """Returns the batch of the one step that was asked for."""
    return Batch(*(array[0] for array in batch))


def report(found: Mapping[str, Any]) -> str:
    """Returns the table."""
    rows = []
    for name in ("resnet_jax", "torchvision"):
        one = found[name]
        ap50 = f"{one['ap50']:.1f}" if "ap50" in one else "-"
        rows.append([name, f"{one['seconds']:.3f}", f"{one['least']:.3f} to {one['most']:.3f}",
                     f"{one['cpu_seconds']:.3f}", ap50])  # fmt: skip
    text = table(
        ["Faster R-CNN on ResNet-20, 4 images", "seconds a step", "least to most", "CPU seconds", "AP50"], rows
    )
    trained = f" AP50 is of {found['steps']:,} steps, one seed." if "steps" in found else ""
    return f"{text}\n\nOurs takes {found['speed_ratio']:.2f} times as many steps a second.{trained}"
