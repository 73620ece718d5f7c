"""Holds what a run learned beside PyTorch: the same net, from the same weights, on the same batches.

    python -m benchmarks learning --run=RUN --steps=200 --write

Only PyTorch trains: the run's own loss and error are those of its record. Rounding grows from step to step, so that the
two part after some tens of steps; what stays alike is how fast they learn.
"""

import time
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks import note, resnet_jax_step
from benchmarks.docs_tables import table
from benchmarks.peers import pytorch
from resnet_jax.data.resident import ResidentPipeline
from resnet_jax.errors import UserError
from resnet_jax.evaluation.open_run import resident_pipeline, run_config
from resnet_jax.tasks.classification import Classification
from resnet_jax.training.finetune import changes_training
from resnet_jax.training.optimizer import make_schedule
from resnet_jax.training.run_record import RunRecord
from resnet_jax.training.step import TrainState, step_keys, training_batch
from resnet_jax.training.trainer import Trainer, make_trainer

#: From images (batch, height, width, channels), labels and a learning rate to the loss and the share of errors.
Step = Callable[[np.ndarray, np.ndarray, float], tuple[float, float]]

#: From a trainer and its first state, whose weights are taken, to what the other is called, and its training step.
Begin = Callable[[Trainer, TrainState], tuple[str, Step]]


def measure(run: str, steps: int, data_dir: str | None = None, begin: Begin | None = None) -> dict[str, Any]:
    """Returns `model`, `seed`, `peer`, and `rows`: our loss and error, and the peer's, of each line of the record.

    Args:
      run: folder of a run on a set that lives on the devices; its config and `metrics.jsonl` are read.
      steps: to train from the start.
      data_dir: where the data are, if not where the run found them.
      begin: by default `begin_pytorch`.

    Raises:
      UserError: if the run has not come so far, or was trained in a way that the other does not have.
    """
    config, record = run_config(run, data_dir), RunRecord(run)
    ours = [line for line in record.lines() if "train_error" in line and line["step"] <= steps]
    if not ours or ours[-1]["step"] < steps:
        last = ours[-1]["step"] if ours else 0
        raise UserError(f"metrics.jsonl of {run} has no line of step {steps}; the last before it is of step {last}")
    if begin is None:
        pytorch.import_torch()  # that it is missing should not be found out behind the data
    trainer = make_trainer(config, jax.devices()[:1])
    pipeline, state = resident_pipeline(trainer), trainer.init()
    peer, step = (begin or begin_pytorch)(trainer, state)
    batch_of, rate = _batches(trainer, pipeline, state.key), make_schedule(config)
    theirs, began = [], time.perf_counter()
    for number in range(steps):
        theirs.append(step(*batch_of(number), float(rate(jnp.int32(number)))))
        if (number + 1) % 10 == 0:
            seconds = (time.perf_counter() - began) / (number + 1)
            note(f"step {number + 1} of {steps}: loss {theirs[-1][0]:.3f}, {seconds * (steps - number - 1):.0f} s left")
    rows, first = [], 0
    for line in ours:
        loss, error = np.mean(theirs[first : line["step"]], axis=0).tolist()
        first = line["step"]
        rows.append({"step": first, "loss": line["loss"], "train_error": line["train_error"],
                     "peer_loss": loss, "peer_train_error": 100 * error})  # fmt: skip
    return {"model": config.model.name, "seed": config.seed, "peer": peer, "rows": rows}


def _batches(
    trainer: Trainer, pipeline: ResidentPipeline, key: jax.Array
) -> Callable[[int], tuple[np.ndarray, np.ndarray]]:
    """Returns what gives the images and labels of a step, as the run was trained on them."""

    @jax.jit
    def batch(resident: Any, indices: Any, number: Any) -> Any:
        augment_key, _ = step_keys(key, number)
        return training_batch(trainer.task, pipeline, resident, indices, augment_key)

    def batch_of(number: int) -> tuple[np.ndarray, np.ndarray]:
        images, labels = batch(pipeline.train, pipeline.train_inputs(number, 1)[0], np.int32(number))
        return np.asarray(images), np.asarray(labels)

    return batch_of


def begin_pytorch(trainer: Trainer, state: TrainState) -> tuple[str, Step]:
    """Returns PyTorch with its version, and its training step: SGD, weight decay on kernels alone.

    Raises:
      UserError: without PyTorch, and for a recipe or a net that is not here.
    """
    torch, config, model = pytorch.import_torch(), trainer.config, trainer.model
    resnet_jax_step.check_net(config.model.name, model)
    chosen = (config.optimizer.name, config.optimizer.nesterov, config.optimizer.decay_scope, config.schedule.warmup)
    if chosen != ("sgd", False, "kernels", "none"):
        raise UserError("`learning` is for SGD without Nesterov and warm-up, and with decay on kernels alone")
    plain = trainer.task == Classification(trainer.pipeline.num_classes) and not changes_training(config)
    if not plain or config.accumulate > 1:
        raise UserError(
            "`learning` is for the plain cross-entropy of whole batches: without mixed images, softened labels, "
            "micro-batches and config.finetune"
        )
    fields = resnet_jax_step.peer_fields(model) | {"channels": trainer.pipeline.image_shape[-1]}
    net = pytorch.build(torch, fields, model.bn_group_size or config.batch_size)
    pytorch.load(torch, net, *(jax.tree.map(np.asarray, tree) for tree in (state.params, state.batch_stats)))
    kernels = [p for p in net.parameters() if p.ndim > 1]
    others = [p for p in net.parameters() if p.ndim == 1]
    optimizer = torch.optim.SGD(
        [{"params": kernels, "weight_decay": config.optimizer.weight_decay}, {"params": others}],
        config.optimizer.learning_rate, momentum=config.optimizer.momentum,
    )  # fmt: skip
    criterion = torch.nn.CrossEntropyLoss()

    def step(images: np.ndarray, labels: np.ndarray, rate: float) -> tuple[float, float]:
        for group in optimizer.param_groups:
            group["lr"] = rate
        x, y = torch.from_numpy(images.transpose(0, 3, 1, 2).copy()), torch.from_numpy(labels.astype(np.int64))
        optimizer.zero_grad(set_to_none=True)
        logits = net(x)
        loss = criterion(logits, y)
        loss.backward()
        optimizer.step()
        return loss.item(), (logits.argmax(1) != y).float().mean().item()

    return f"PyTorch {torch.__version__.partition('+')[0]}", step


def report(found: Mapping[str, Any], parts: int = 5) -> str:
    """Returns the table: the means over so many parts of the steps, and the first line by itself."""
    rows, done, last = [], 0, found["rows"][-1]["step"]
    edges = sorted({0, found["rows"][0]["step"], *(last * (i + 1) // parts for i in range(parts))})
    names = ("loss", "peer_loss", "train_error", "peer_train_error")
    for low, high in zip(edges[:-1], edges[1:], strict=True):
        lines = [row for row in found["rows"] if low < row["step"] <= high]
        if lines:
            means = [float(np.mean([row[name] for row in lines])) for name in names]
            steps, done = (
                f"{done + 1} to {lines[-1]['step']}",
                lines[-1]["step"],
            )  # a line is of all since the one ahead
            rows.append([steps, *(f"{m:.2f}" for m in means[:2]), *(f"{m:.1f}" for m in means[2:])])
    title = f"{found['model']}, seed {found['seed']}: iterations"
    peer = found["peer"]
    return table([title, "loss, this project", peer, "training error (%), this project", peer], rows)
