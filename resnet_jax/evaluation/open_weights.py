"""Weights with a data set to test them on, in the form of an open run, so that whatever tests a run tests them."""

import dataclasses
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from resnet_jax.config import model_overrides
from resnet_jax.data.placement import place
from resnet_jax.errors import UserError
from resnet_jax.evaluation.restore import OpenRun
from resnet_jax.interop.weights import Weights
from resnet_jax.models.summary import summarize
from resnet_jax.training.mesh import replicated
from resnet_jax.training.state import TrainState
from resnet_jax.training.step import make_eval_step
from resnet_jax.training.trainer import Trainer, make_trainer
from resnet_jax.training.weights import load_weights

#: Value of config.data.normalization by which images are normalised as the weights say.
GIVEN = "weights"


def open_weights(path: str | Path, config: ConfigDict,
                 warn: Callable[[str], None] = lambda sentence: None) -> OpenRun:  # fmt: skip
    """Opens weights and the data set of a config. The net is the weights', whatever the config's net is.

    Args:
      path: as `load_weights` takes it.
      config: a run's config; of it count `data`, `dtype` and `batch_size`. `data.normalization` may be `GIVEN`.
      warn: told of images that are not shown as the weights were made for.

    Raises:
      UserError: for weights or data that cannot be read, or that have not the same classes or channels.
    """
    weights = load_weights(path)
    config = config.copy_and_resolve_references()
    given = config.data.normalization == GIVEN
    config.model.name = weights.model
    for field in model_overrides(config):
        config.model[field] = None
    if given:
        config.data.normalization = "per_pixel_mean"  # that any set has; it is replaced below
    trainer = _with_net(make_trainer(config), weights, path)
    if given:
        trainer = _normalised(trainer, weights, path)
        config.data.normalization = GIVEN
    variables = place(weights.variables, replicated(trainer.mesh))
    state = TrainState(
        step=jnp.asarray(weights.source.get("steps", 0), jnp.int32),
        params=variables["params"], batch_stats=variables["batch_stats"], opt_state=(),
        key=jax.random.key_data(jax.random.key(0)), warming=jnp.zeros((), bool),
        warmup_error=jnp.zeros((), jnp.float32),
    )  # fmt: skip
    run = OpenRun(Path(path), trainer, state)
    for sentence in _doubts(run, weights):
        warn(sentence)
    return run


def _with_net(trainer: Trainer, weights: Weights, path: str | Path) -> Trainer:
    if trainer.num_classes != weights.num_classes:
        raise UserError(
            f"{path} has {weights.num_classes} classes and {trainer.config.data.name} has {trainer.num_classes}"
        )
    height, _, channels = trainer.pipeline.image_shape
    if channels != weights.channels:
        raise UserError(f"{path} takes images of {weights.channels} channel(s), not of {channels}")
    model = weights.create_model(dtype=trainer.config.dtype)
    return dataclasses.replace(
        trainer, model=model, summary=summarize(model, weights.model, height, channels),
        eval_step=make_eval_step(model, trainer.pipeline, trainer.mesh),
    )  # fmt: skip


def _normalised(trainer: Trainer, weights: Weights, path: str | Path) -> Trainer:
    shape = trainer.pipeline.image_shape
    if weights.mean.ndim == 3 and weights.mean.shape != shape:
        raise UserError(f"{path} subtracts a mean image of {weights.mean.shape}, and images are {shape} here")
    statistics = place({"mean": weights.mean, "std": weights.std}, replicated(trainer.mesh))
    old: Any = trainer.pipeline
    pipeline = dataclasses.replace(old, train=old.train | statistics, test=old.test | statistics)
    return dataclasses.replace(
        trainer, pipeline=pipeline, eval_step=make_eval_step(trainer.model, pipeline, trainer.mesh)
    )


def _doubts(run: OpenRun, weights: Weights) -> Iterator[str]:
    """Sentences on images that are not shown as the weights were made for."""
    shown = run.trainer.pipeline.test
    for name, theirs, ours in (("mean", weights.mean, shown["mean"]), ("deviation", weights.std, shown["std"])):
        if theirs.shape != ours.shape or not np.allclose(theirs, ours, atol=1e-3):
            yield (
                f"config.data.normalization={run.config.data.normalization} has another {name} than {run} is for; "
                f"--config.data.normalization={GIVEN} takes the weights' own"
            )
            return
