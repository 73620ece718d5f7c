"""Builds the parts of a run from its config: mesh, net, task, data and jitted steps."""

import dataclasses
from collections.abc import Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jax.sharding import Mesh
from ml_collections import ConfigDict

from resnet_jax.config import model_overrides
from resnet_jax.data.pipeline import Pipeline, make_pipeline
from resnet_jax.data.placement import place
from resnet_jax.data.resident import ResidentPipeline
from resnet_jax.errors import UserError, some
from resnet_jax.interop.weights import Weights
from resnet_jax.kernels.build import in_use as kernels_in_use
from resnet_jax.models.detection.detector import Detector
from resnet_jax.models.registry import create_model, list_models
from resnet_jax.models.summary import Summary, summarize
from resnet_jax.models.vgg import VGG
from resnet_jax.tasks.choose import make_task
from resnet_jax.tasks.task import Task
from resnet_jax.training.alternating import check_losses, proposed_by
from resnet_jax.training.config_checks import validate_config
from resnet_jax.training.distributed import batch_sharded, in_any, make_mesh, platform, replicated
from resnet_jax.training.finetune import changes_training, check_parts
from resnet_jax.training.init_from import load_proposer, load_recorded_weights, resolve
from resnet_jax.training.result import DatasetInfo
from resnet_jax.training.step import TrainState, init_state, make_eval_step, make_train_step
from resnet_jax.training.transfer import new_parts, with_weights

#: Weighted layers from which an unrolled step takes minutes to compile (docs/performance.md).
LONG_TO_COMPILE = 300


@dataclasses.dataclass(frozen=True)
class Trainer:
    """Holds everything that a config stands for, ready to run.

    Attributes:
      config: the config.
      mesh: all devices.
      model: the net.
      task: what it is trained for.
      summary: its layers at the set's image size.
      pipeline: the data on the devices, or on its way there.
      train_step, eval_step: the jitted steps.
      weights: those that the run starts from, if they were read already.
      new_parts: the net's parts that start from random numbers all the same.
    """

    config: ConfigDict
    mesh: Mesh
    model: nn.Module
    task: Task
    summary: Summary
    pipeline: Pipeline
    train_step: jax.stages.Wrapped
    eval_step: jax.stages.Wrapped
    weights: Weights | None = None
    new_parts: tuple[str, ...] = ()

    @property
    def evaluated_on(self) -> str:
        """Returns what is evaluated on: "test", "validation", or "held_out" for a part of the training set."""
        return self.pipeline.evaluated_on

    def init(self, random: TrainState | None = None) -> TrainState:
        """Returns the state before the first step, on every device; all processes call it together.

        Args:
          random: `random_init`'s, if there is one already.

        Raises:
          UserError: if the weights to start from are gone, or are not those that the run began with.
        """
        state = self.random_init() if random is None else random
        if self.config.init_from is None:
            return state
        weights = self.weights or load_recorded_weights(self.config)
        return place(with_weights(state, weights, self.config, self.pipeline.classes), replicated(self.mesh))

    def random_init(self) -> TrainState:
        """Returns a state of the run's structure, with random parameters, for a checkpoint to be read into."""
        return place(init_state(self.model, self.config, self.pipeline.image_shape), replicated(self.mesh))

    def evaluate(self, state: TrainState) -> dict[str, float]:
        """Returns the task's metrics over the evaluation set, each example once; all processes call it together.

        Images that cannot be read are shown grey and count; if there are any, `unreadable` is their number.

        Raises:
          UserError: if no image can be read.
        """
        variables, pipeline = state.tested_variables, self.pipeline
        shared = batch_sharded(self.mesh)
        batches = [
            self.eval_step(variables, pipeline.test, *pipeline.send(inputs, shared))
            for inputs in pipeline.test_inputs()
        ]
        metrics = self.task.eval_metrics(jax.device_get(batches))
        unreadable = self.unreadable()
        return metrics | ({"unreadable": unreadable} if unreadable else {})

    def unreadable(self) -> int:
        """Returns how many images of the last evaluation could not be read; all processes call it together.

        Raises:
          UserError: if none could.
        """
        pipeline = self.pipeline
        count = int(in_any(pipeline.unreadable()).sum())
        if not isinstance(pipeline, ResidentPipeline) and count == pipeline.test_size:
            why = pipeline.test_loader.unreadable.first("test")
            raise UserError(f"none of the {count:,} {pipeline.evaluated_on} images can be read: {why}")
        return count

    def dataset_info(self) -> DatasetInfo:
        """Returns what the net's weights need of the data set."""
        return DatasetInfo(
            self.pipeline.num_classes, tuple(self.pipeline.image_shape), self.pipeline.classes,
            np.asarray(self.pipeline.test["mean"]), np.asarray(self.pipeline.test["std"]), self.pipeline.shorter_side,
            source=self.pipeline.source, fingerprint=self.pipeline.fingerprint,
        )  # fmt: skip

    def notes(self) -> Iterator[str]:
        """Gives sentences that the user should know ahead of the first step."""
        config, schedule = self.config, self.config.schedule
        of_examples = config.task == "classification"
        if config.accumulate > 1 and not getattr(self.model, "bn_group_size", 0):
            independent = "; with config.model.bn_group_size set, the result does not depend on config.accumulate"
            yield (
                f"batch statistics are over the {config.batch_size // config.accumulate} examples of a micro-batch"
                f"{independent if of_examples else ''}"
            )
        if config.accumulate > 1 and not of_examples:
            yield (
                "the loss is the mean of those of micro-batches, each a mean over its own "
                f"{'pixels' if config.task == 'segmentation' else 'anchors and regions'}, of which one may have fewer "
                "than another: the result depends on config.accumulate"
            )
        if self.summary.depth >= LONG_TO_COMPILE and not getattr(self.model, "scan", False):
            slower = platform(self.mesh) == "cpu" and not kernels_in_use(list(self.mesh.devices.flat))
            yield (
                f"{self.summary.depth} layers take long to compile, once; config.model.scan=True compiles like units "
                f"as one loop{', whose steps are slower on this CPU' if slower else ''}"
            )
        if schedule.warmup in ("steps", "linear") and schedule.warmup_steps >= config.steps:
            yield f"all {config.steps} steps are warm-up: config.schedule.warmup_steps={schedule.warmup_steps}"
        if self.weights is not None:
            new = f", but for new {', '.join(self.new_parts)}" if self.new_parts else ""
            yield f"begins with the weights of {config.init_from}{new}"
        yield from self.pipeline.notes()


def make_trainer(
    config: ConfigDict,
    devices: Sequence[jax.Device] | None = None,
    weights: Weights | None = None,
    task: Task | None = None,
    model: nn.Module | None = None,
    proposer: Weights | None = None,
) -> Trainer:
    """Builds all parts of a run.

    Args:
      config: the fields of `config.base_config`.
      devices: devices to train on, all by default.
      weights: those of `config.init_from`, if they were read already.
      task: what the net is trained for; that of the config by default.
      model: a net of the user's own, called with (inputs, train); that of the config by default.
      proposer: weights of `config.detection.proposals_from`, if they were read already.

    Raises:
      UserError: for anything in the config that is unknown or does not fit.
    """
    validate_config(config)
    if weights is None:
        config, weights = resolve(config)
    mesh = make_mesh(devices)
    if model is None:
        check_net(config)  # a misspelt net should not wait for the data
    pipeline = make_pipeline(config, mesh)
    pipeline, proposing = proposed_by(proposer or load_proposer(config), config, pipeline)
    if proposing:
        shown: Any = pipeline
        proposing = place(proposing, replicated(mesh))
        pipeline = dataclasses.replace(shown, train=shown.train | proposing, test=shown.test | proposing)
    if config.early_stopping.patience and pipeline.evaluated_on == "test":
        raise UserError(
            f"config.early_stopping would choose the weights on the test images of {config.data.name}; evaluate on "
            "others: --config.data.eval_split=validation, where there are such, or "
            "--config.data.eval_split=held_out --config.data.held_out_share=0.1"
        )
    if model is None:
        model = build_model(config, pipeline.num_classes, pipeline.image_shape)
    height, _, channels = pipeline.image_shape
    summary = summarize(model, config.model.name, height, channels)
    if isinstance(model, Detector):
        check_losses(config, model, pipeline.image_shape)
    new: tuple[str, ...] = ()
    if changes_training(config) or weights is not None:
        shapes = jax.eval_shape(lambda: model.init(jax.random.key(0), jnp.zeros((1, *pipeline.image_shape))))
        check_parts(config, shapes["params"])
        if weights is not None:
            new = new_parts(weights, config, shapes, pipeline.classes)
    task = task or make_task(config, pipeline.num_classes, pipeline.classes)
    return Trainer(
        config, mesh, model, task, summary, pipeline,
        make_train_step(model, task, config, pipeline, mesh), make_eval_step(model, task, pipeline, mesh),
        weights, new,
    )  # fmt: skip


def check_net(config: ConfigDict) -> None:
    """Checks that a config's net is for its task.

    Raises:
      UserError: if it is not, and for a net that there is not.
    """
    net: Any = create_model(config.model.name, **model_overrides(config))
    if net.task != config.task:
        raise UserError(
            f"config.model.name={config.model.name} is a net for {net.task}, and config.task={config.task}; nets for "
            f"{config.task} are {some(list_models(config.task), 6)}"
            + (", and others with config.model.head=fcn" if config.task == "segmentation" else "")
        )


def build_model(config: ConfigDict, num_classes: int, image_shape: tuple[int, ...]) -> nn.Module:
    """Returns a config's net.

    Raises:
      UserError: for fields that the net cannot have, and sizes of images that it cannot take.
    """
    name = config.model.name
    model = create_model(
        name, **model_overrides(config), num_classes=num_classes, dtype=config.dtype, precision=config.precision
    )
    height = image_shape[0]
    sizes = tuple(config.data.train_sizes) or (height,)
    if isinstance(model, VGG) and set(sizes) != {height}:
        raise UserError(f"config.data.train_sizes={sizes}: {name}'s fully connected layers fit {height} pixels alone")
    return model
