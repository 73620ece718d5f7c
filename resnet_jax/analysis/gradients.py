"""Gradient norms by layer: do gradients vanish with depth (He et al. 2015, section 4.2)?

The paper says that the plain nets' difficulty is "unlikely to be caused by vanishing gradients", since "the backward
propagated gradients exhibit healthy norms with BN". It shows no figure. This measures the gradient with respect to each
layer's kernel, which the optimiser uses, and to each layer's output before batch norm, which is propagated backward.
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from flax import traverse_util
from jax import Array

from resnet_jax.analysis.layer_outputs import shifted_outputs
from resnet_jax.analysis.run_files import write_json
from resnet_jax.errors import UserError
from resnet_jax.evaluation.open_run import resident_pipeline, run_config
from resnet_jax.evaluation.scoring import Report, silent
from resnet_jax.models.scan import unrolled
from resnet_jax.models.summary import Summary
from resnet_jax.tasks.task import Task
from resnet_jax.training.distributed import batch_sharded, check_batch, platform, replicated
from resnet_jax.training.run_record import RunRecord
from resnet_jax.training.step import step_keys, training_batch
from resnet_jax.training.trainer import Trainer, make_trainer

FILE = "gradients.json"

#: Default times of measurement, as fractions of the run's steps.
MOMENTS = (0.0, 0.01, 0.1, 0.5, 1.0)

#: Batches that one measurement averages over: the norm of a single batch is noisy.
BATCHES = 4

#: Steps of one dispatch between measurements, on GPU and TPU.
STEPS_PER_DISPATCH = 100

Norms = dict[str, Array]


def weighted_layers(summary: Summary) -> list[str]:
    """Returns the paths of the layers that count towards the depth, in order: `stem/conv`, ..., `head`."""
    return [layer.path for layer in summary.layers if layer.weighted]


def make_gradient_norms(model: nn.Module, task: Task, layers: Sequence[str]) -> Callable[..., Norms]:
    """Makes a function that computes gradient norms by layer, in training mode and without weight decay.

    Args:
      model: a net of this package.
      task: what it is trained on.
      layers: paths of convolutions or fully connected layers.

    Returns:
      (params, batch_stats, images, labels, key for dropout) -> `{"kernels": (layers,), "outputs": (layers,)}`: the
      L2 norms of the gradient of the batch's loss with respect to each layer's kernel, and to its output over the
      whole batch.
    """

    def forward(params: Any, batch_stats: Any, offsets: Mapping[str, Array], images: Array, key: Array) -> Any:
        """Returns logits, with `offsets[path]` added to layers' outputs, and those outputs."""
        with shifted_outputs(layers, offsets) as outputs:
            variables = {"params": params, "batch_stats": batch_stats}
            logits, _ = unrolled(model).apply(
                variables, images, train=True, mutable=["batch_stats"], rngs={"dropout": key}
            )
        return logits, outputs

    def norms(params: Any, batch_stats: Any, images: Array, labels: Array, key: Array) -> Norms:
        shapes = jax.eval_shape(lambda: forward(params, batch_stats, {}, images, key)[1])
        offsets = {path: jnp.zeros(shapes[path].shape, shapes[path].dtype) for path in layers}

        def loss(params: Any, offsets: Any) -> Array:
            return task.loss(forward(params, batch_stats, offsets, images, key)[0], images, labels)[0]

        by_params, by_outputs = jax.grad(loss, argnums=(0, 1))(params, offsets)
        by_params = traverse_util.flatten_dict(by_params, sep="/")
        return {
            "kernels": jnp.stack([jnp.linalg.norm(by_params[f"{path}/kernel"].ravel()) for path in layers]),
            "outputs": jnp.stack([jnp.linalg.norm(by_outputs[path].astype(jnp.float32).ravel()) for path in layers]),
        }

    return norms


def measurement_steps(steps: int, moments: Sequence[float] = MOMENTS) -> list[int]:
    """Returns the steps at fractions of a run, ascending, without duplicates."""
    return sorted({round(moment * steps) for moment in moments})


def train_and_measure(
    trainer: Trainer, steps: Sequence[int], report: Report = silent
) -> list[tuple[int, dict[str, np.ndarray]]]:
    """Trains from the start and measures the norms at some steps; nothing is written.

    (seed, step) determine the run, so this repeats the run of the trainer's config.

    Args:
      trainer: of the config.
      steps: when to measure, ascending: the mean of the norms on the next `BATCHES` training batches.
      report: called with (steps done, steps in all).

    Returns:
      For each of `steps`: it and `{"kernels": (layers,), "outputs": (layers,)}`, float32.
    """
    mesh, pipeline = trainer.mesh, resident_pipeline(trainer)
    check_batch(mesh, trainer.config.batch_size, trainer.config.accumulate)
    gradient_norms = make_gradient_norms(trainer.model, trainer.task, weighted_layers(trainer.summary))
    everywhere = replicated(mesh)

    def measure(params: Any, batch_stats: Any, key: Array, resident: Any, step: Array, indices: Array) -> Norms:
        augment_key, dropout_key = step_keys(key, step)
        batch = training_batch(trainer.task, pipeline, resident, indices, augment_key)
        images, labels = jax.lax.with_sharding_constraint(batch, batch_sharded(mesh))
        return gradient_norms(params, batch_stats, images, labels, dropout_key)

    measured = jax.jit(
        measure, in_shardings=(everywhere,) * 5 + (batch_sharded(mesh),), out_shardings=everywhere
    )  # fmt: skip
    most = 1 if platform(mesh) == "cpu" else STEPS_PER_DISPATCH
    state, done, found = trainer.init(), 0, []
    for step in steps:
        while done < step:
            # Only two different counts, since each compiles a program.
            count = most if step - done >= most else 1
            state, _ = trainer.train_step(state, pipeline.train, pipeline.train_inputs(done, count))
            done += count
            report(done, steps[-1])
        batches = [
            jax.device_get(measured(state.params, state.batch_stats, state.key, pipeline.train, s,
                                    pipeline.train_inputs(s, 1)[0]))
            for s in range(step, step + BATCHES)
        ]  # fmt: skip
        found.append((step, jax.tree.map(lambda *norms: np.mean(norms, axis=0), *batches)))
    return found


def run_gradients(
    workdir: str | Path,
    steps: Sequence[int] | None = None,
    data_dir: str | None = None,
    report: Report = silent,
) -> Path:
    """Trains a run's net again, and writes `gradients.json` into the run's folder.

    The file holds `steps` [moments], `layers` [layers], and the norms `kernels` and `outputs` [moments][layers].

    Args:
      workdir: the run's folder; only its config is read.
      steps: when to measure, by default at `MOMENTS` of the run. Training ends with the last.
      data_dir: where the data are, if not where the run found them.
      report: called with (steps done, steps in all).

    Raises:
      UserError: if the folder holds no run or cannot be written to, for a step outside the run, or a gradient that is
        not finite.
    """
    config = run_config(workdir, data_dir)
    steps = measurement_steps(config.steps) if steps is None else sorted(set(steps))
    if not steps or steps[0] < 0 or steps[-1] > config.steps:
        raise UserError(f"steps {', '.join(map(str, steps))} must be between 0 and the run's {config.steps}")
    trainer = make_trainer(config)
    found = train_and_measure(trainer, steps, report)
    for step, norms in found:
        if not all(np.isfinite(values).all() for values in norms.values()):
            raise UserError(f"the gradient is not finite at step {step} of the run in {workdir}")
    record = {
        "steps": [step for step, _ in found],
        "layers": weighted_layers(trainer.summary),
        **{kind: [norms[kind].tolist() for _, norms in found] for kind in ("kernels", "outputs")},
    }
    return write_json(RunRecord(workdir).workdir / FILE, record)
