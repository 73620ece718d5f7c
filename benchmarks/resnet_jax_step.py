"""Our own step, as `fit` runs it, on random images that lie on the devices."""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np
from flax import linen as nn

from benchmarks.peers import Implementation, Task
from resnet_jax.config import base_config, model_overrides
from resnet_jax.data.dataset import Dataset, Split
from resnet_jax.data.resident import ResidentPipeline, make_resident
from resnet_jax.errors import UserError
from resnet_jax.kernels.build import switched_off
from resnet_jax.models.registry import VARIANTS, create_model, get_variant, list_models
from resnet_jax.models.resnet import ResNet
from resnet_jax.models.summary import summarize
from resnet_jax.tasks.classification import Classification
from resnet_jax.training.config_checks import validate_config
from resnet_jax.training.distributed import batch_sharded, make_mesh, platform
from resnet_jax.training.step import make_eval_step, make_train_step
from resnet_jax.training.stepper import Stepper
from resnet_jax.training.trainer import Trainer

#: Batches of an epoch: enough that no cache holds them all, few enough for the memory.
BATCHES = 4

#: Small enough that no net diverges while it is timed.
LEARNING_RATE = 0.001


def make_benchmark_trainer(
    name: str,
    batch_size: int,
    image_size: int = 0,
    dtype: str = "float32",
    devices: Sequence[jax.Device] | None = None,
    **fields: Any,
) -> Trainer:
    """Returns the paper's recipe as `make_trainer` would make it, but with random images and no augmentation.

    Args:
      name: of a net.
      batch_size: over all devices.
      image_size: in pixels; 0: the size that the net was published for.
      dtype: of the computation.
      devices: all by default.
      **fields: of the net, to override.
    """
    variant = get_variant(name)
    size = image_size or variant.image_size
    classes = variant.fields.get("num_classes", 1000)
    config = base_config()
    config.model.name, config.batch_size, config.dtype = name, batch_size, dtype
    config.model.update(fields)
    config.optimizer.learning_rate = LEARNING_RATE
    config.steps, config.schedule.boundaries = 10**6, ()
    validate_config(config)
    mesh = make_mesh(devices)
    draw = np.random.default_rng(0)
    count = batch_size * BATCHES

    def split(count: int) -> Split:
        images = draw.integers(0, 256, (count, size, size, 3), np.uint8)
        return Split(images, (np.arange(count) % classes).astype(np.int32))

    config.data.update({"normalization": "per_channel", "padding": 0, "flip": False})
    pipeline = make_resident(Dataset("random", split(count), split(batch_size), classes), config, mesh)
    # An evaluation batch as large as a training batch.
    pipeline = dataclasses.replace(pipeline, eval_batch_size=batch_size)
    model = create_model(name, **model_overrides(config), num_classes=classes, dtype=dtype)
    task = Classification.from_config(config, classes)
    return Trainer(
        config, mesh, model, task, summarize(model, name, size), pipeline,
        make_train_step(model, task, config, pipeline, mesh), make_eval_step(model, task, pipeline, mesh),
    )  # fmt: skip


def name_and_size(text: str, image_size: int = 0) -> tuple[str, int]:
    """Returns the net and the side of its images from "cifar_resnet20@8"; without "@" the side is `image_size`.

    Raises:
      UserError: for a side that is no whole number of 1 or more.
    """
    name, at, size = text.partition("@")
    if at and not (size.isdecimal() and int(size)):
        raise UserError(f"--model=...@{size}: behind @ stands the side of images in pixels")
    return name, int(size) if at else image_size


def steps_per_dispatch(trainer: Trainer) -> int:
    """Returns how many steps the loop takes in one dispatch by default: 1 on CPU."""
    return 1 if platform(trainer.mesh) == "cpu" else trainer.pipeline.steps_per_dispatch


def check_net(name: str, model: nn.Module) -> None:
    """Raises UserError for a net that the peers do not have."""
    there = isinstance(model, ResNet) and model.task == "classification"
    if not there or model.block == "single" or model.activation != "original":
        nets = [name for name in list_models("classification") if VARIANTS[name].net is ResNet]
        known = [name for name in nets if "preact" not in name and "1layer" not in name]
        raise UserError(f"the peers have no {name}; they have {', '.join(known)}")


def peer_fields(model: Any) -> dict[str, Any]:
    """Returns the fields of a net that the peers' nets have."""
    names = ("stage_sizes", "widths", "num_classes", "block", "stem", "shortcut", "stride_on")
    return {name: getattr(model, name) for name in names}


def task(trainer: Trainer) -> Task:
    """Returns the same net, weights, batches and optimiser for the peers.

    Raises:
      UserError: for a net that the peers do not have.
    """
    model, pipeline = trainer.model, trainer.pipeline
    check_net(trainer.config.model.name, model)
    assert isinstance(pipeline, ResidentPipeline)
    batches = [pipeline.eval_batch(pipeline.train, pipeline.train_inputs(i, 1)[0]) for i in range(BATCHES)]
    state = trainer.init()
    variables = jax.tree.map(np.asarray, {"params": state.params, "batch_stats": state.batch_stats})
    images, labels = (np.stack([np.asarray(part) for part in parts]) for parts in zip(*batches, strict=True))
    config = trainer.config.optimizer
    return Task(
        peer_fields(model), variables, images, labels,
        config.learning_rate, config.momentum, config.weight_decay, trainer.config.dtype,
    )  # fmt: skip


def implementation(trainer: Trainer, stepper: Stepper | None = None) -> Implementation:
    """Returns training as `fit` does it: one dispatch ahead, the metrics of every step fetched.

    The first `BATCHES` steps are on the batches of `task`; later epochs are shuffled anew.
    """
    stepper = stepper or Stepper(trainer)
    box: dict[str, Any] = {"state": trainer.init(), "step": 0}
    most = steps_per_dispatch(trainer)

    def losses(count: int) -> list[float]:
        found: list[float] = []
        while count > 0:
            now = most if count >= most else 1
            box["state"] = stepper.advance(box["state"], box["step"], now)
            box["step"] += now
            count -= now
            found += [metrics["loss"] for _, metrics in stepper.collect(1 if count else 0)]
        return found

    def step_from(params: dict) -> tuple[float, dict]:
        state = box["state"]
        box["state"] = state.replace(
            params=jax.tree.map(lambda new, old: jax.device_put(np.asarray(new), old.sharding), params, state.params)
        )
        return losses(1)[0], jax.tree.map(np.asarray, box["state"].params)

    tested = trainer.init().tested_variables
    pipeline = trainer.pipeline
    assert isinstance(pipeline, ResidentPipeline)
    shared = batch_sharded(trainer.mesh)
    mask = np.ones(trainer.config.batch_size, np.float32)

    def evaluate(count: int) -> list[float]:
        sums = []
        for i in range(count):
            inputs = pipeline.send((pipeline.train_inputs(i % BATCHES, 1)[0], mask), shared)
            sums.append(trainer.eval_step(tested, pipeline.train, *inputs))
        return [float(s["loss"]) / float(s["count"]) for s in jax.device_get(sums)]

    return Implementation("resnet_jax", losses, evaluate, step_from)


def whole_batch_implementation(trainer: Trainer) -> Implementation:
    """Returns the same step with batch norm's statistics over the whole batch: what `bn_group_size` costs."""
    return dataclasses.replace(implementation(_again(trainer, bn_group_size=0)), name="resnet_jax, whole batch")


def xla_implementation(trainer: Trainer) -> Implementation:
    """Returns the same step with XLA's own layers: what `resnet_jax.kernels` gains."""
    with switched_off():
        mine = implementation(_again(trainer))

    def without_kernels(work: Callable[..., Any]) -> Callable[..., Any]:
        def switched(argument: Any) -> Any:
            with switched_off():
                return work(argument)

        return switched

    works = (without_kernels(work) for work in (mine.losses, mine.evaluate, mine.step_from))
    return Implementation("resnet_jax, XLA's layers", *works)


def _again(trainer: Trainer, **fields: Any) -> Trainer:
    """Returns another trainer of the same, with some of the net's fields changed."""
    config = trainer.config
    devices = list(trainer.mesh.devices.flat)
    fields = model_overrides(config) | fields
    return make_benchmark_trainer(
        config.model.name, config.batch_size, trainer.summary.image_size, config.dtype, devices, **fields
    )
