"""Opens a trained run at its newest checkpoint, or weights with a data set, to be evaluated or analysed."""

import dataclasses
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from resnet_jax.config import model_overrides
from resnet_jax.data.imagenet.wnids import class_names, official_wnids
from resnet_jax.data.placement import place
from resnet_jax.data.resident import ResidentPipeline
from resnet_jax.errors import UserError
from resnet_jax.interop.weights import Weights
from resnet_jax.models.summary import summarize
from resnet_jax.training.checkpoint import read_newest
from resnet_jax.training.distributed import replicated
from resnet_jax.training.load_weights import load_weights, passed_over
from resnet_jax.training.run_record import CHECKPOINTS, RunRecord
from resnet_jax.training.step import TrainState, make_eval_step
from resnet_jax.training.trainer import Trainer, make_trainer

#: Value of config.data.normalization by which images are normalised as the weights say.
GIVEN = "weights"


@dataclasses.dataclass(frozen=True)
class OpenRun:
    """Holds a run that can be evaluated.

    Attributes:
      workdir: its folder, or the path of the weights.
      trainer: everything that its config stands for.
      state: of its newest checkpoint that can be read, on every device.
      passed_over: a sentence for each newer checkpoint that could not be read.
    """

    workdir: Path
    trainer: Trainer
    state: TrainState
    passed_over: tuple[str, ...] = ()

    def __str__(self) -> str:
        return str(self.workdir)

    @property
    def config(self) -> ConfigDict:
        return self.trainer.config

    @property
    def step(self) -> int:
        """Steps that the net was trained for."""
        return int(self.state.step)

    @property
    def variables(self) -> dict[str, Any]:
        """The net's variables as they are evaluated, on the host."""
        return jax.device_get(self.state.tested_variables)


def run_config(workdir: str | Path, data_dir: str | None = None) -> ConfigDict:
    """Reads the config of a run, trained or not; see `open_run`."""
    config = RunRecord(workdir).config()
    if data_dir is not None:
        config.data.data_dir = data_dir
    return config


def open_run(workdir: str | Path | OpenRun, data_dir: str | None = None) -> OpenRun:
    """Opens a run at its newest checkpoint that can be read. Nothing in its folder is changed.

    Args:
      workdir: the run's folder; a run that is open is returned as it is.
      data_dir: where the data are, if not where the run found them.

    Raises:
      UserError: if the folder holds no run, or a run without a checkpoint.
    """
    if isinstance(workdir, OpenRun):
        return workdir
    record = RunRecord(workdir)
    config = run_config(workdir, data_dir)
    directory = record.workdir / CHECKPOINTS
    missing = UserError(f"{workdir} holds no checkpoint yet; train it first")
    if not directory.is_dir():  # before the data set is read, which takes long
        raise missing
    trainer = make_trainer(config)
    restored = read_newest(directory, trainer.random_init(), replicated(trainer.mesh))
    if restored is None:
        raise missing
    return OpenRun(record.workdir, trainer, restored.state, passed_over(record, restored))


def resident_pipeline(trainer: Trainer) -> ResidentPipeline:
    """Returns the data of a run, on the devices; raises UserError for a set that is streamed."""
    if not isinstance(trainer.pipeline, ResidentPipeline):
        raise UserError(f"this is for sets that live on the devices, not for {trainer.config.data.name}")
    return trainer.pipeline


def open_weights(path: str | Path, config: ConfigDict,
                 warn: Callable[[str], None] = lambda sentence: None) -> OpenRun:  # fmt: skip
    """Opens weights and the data set of a config as a run. The net is that of the weights, not the config's.

    Args:
      path: as `load_weights` takes it.
      config: a run's config, of which `data`, `dtype`, `precision` and `batch_size` are used. `data.normalization` may
        be `GIVEN`.
      warn: called with a sentence if images are normalised differently than for the weights, and if the set's classes
        stand in another order.

    Raises:
      UserError: for weights or data that cannot be read, or whose classes or channels differ.
    """
    weights = load_weights(path)
    config = config.copy_and_resolve_references()
    given = config.data.normalization == GIVEN
    config.model.name = weights.model
    for field in model_overrides(config):
        config.model[field] = None
    for field, value in weights.fields.items():
        if field in config.model:
            config.model[field] = value
    if given:
        config.data.normalization = "per_pixel_mean"  # which any set has; it is replaced below
    trainer = _with_weights(make_trainer(config), weights, path, given)
    if given:
        config.data.normalization = GIVEN
    variables = place(weights.variables, replicated(trainer.mesh))
    state = TrainState(
        step=jnp.asarray(weights.source.get("steps", 0), jnp.int32),
        params=variables["params"], batch_stats=variables["batch_stats"], opt_state=(),
        key=jax.random.key_data(jax.random.key(0)), warming=jnp.zeros((), bool),
        warmup_error=jnp.zeros((), jnp.float32),
    )  # fmt: skip
    run = OpenRun(Path(path), trainer, state)
    for sentence in _differences(run, weights):
        warn(sentence)
    return run


def _with_weights(trainer: Trainer, weights: Weights, path: str | Path, given: bool) -> Trainer:
    """Returns the trainer with the net of the weights and, if so `given`, with images normalised for them."""
    pipeline: Any = trainer.pipeline
    if not weights.num_classes:
        raise UserError(f"{path} has no classifier: it cannot be tested, but --config.init_from trains one on it")
    if pipeline.num_classes != weights.num_classes:
        raise UserError(
            f"{path} has {weights.num_classes} classes and {trainer.config.data.name} has {pipeline.num_classes}"
        )
    height, _, channels = pipeline.image_shape
    if channels != weights.channels:
        raise UserError(f"{path} takes images of {weights.channels} channel(s), not of {channels}")
    if given:
        if weights.mean.ndim == 3 and weights.mean.shape != pipeline.image_shape:
            raise UserError(
                f"{path} subtracts a mean image of {weights.mean.shape}, and images are {pipeline.image_shape} here"
            )
        statistics = place({"mean": weights.mean, "std": weights.std}, replicated(trainer.mesh))
        pipeline = dataclasses.replace(pipeline, train=pipeline.train | statistics, test=pipeline.test | statistics)
    model = weights.create_model(dtype=trainer.config.dtype, precision=trainer.config.precision)
    return dataclasses.replace(
        trainer, model=model, pipeline=pipeline, summary=summarize(model, weights.model, height, channels),
        eval_step=make_eval_step(model, trainer.task, pipeline, trainer.mesh),
    )  # fmt: skip


def _differences(run: OpenRun, weights: Weights) -> Iterator[str]:
    """Yields a sentence if the order of classes or the normalisation of images is another than the weights'."""
    shown, words = run.trainer.pipeline.test, dict(zip(official_wnids(), class_names(), strict=True))
    both = weights.classes, run.trainer.pipeline.classes
    of_weights, of_set = ([words.get(name, name) for name in names] for names in both)
    for label, (known, found) in enumerate(zip(of_weights, of_set, strict=False)):
        # Names that the other does not have at all may be other words for the same classes.
        if known != found and (known in of_set or found in of_weights):
            yield (
                f"label {label} is {found!r} in {run.config.data.name} and {known!r} in {run}: where classes stand in "
                "another order, the errors mean nothing"
            )
            break
    for name, theirs, here in (("mean", weights.mean, shown["mean"]), ("deviation", weights.std, shown["std"])):
        if theirs.shape != here.shape or not np.allclose(theirs, here, atol=1e-3):
            yield (
                f"config.data.normalization={run.config.data.normalization} has another {name} than {run} is for; "
                f"--config.data.normalization={GIVEN} takes the weights' own"
            )
            return
