"""Weights from wherever they are: a folder of weights, a run, whose data set is not needed, or a file of another
project's."""

from pathlib import Path

import jax

from resnet_jax.config import config_hash, model_overrides
from resnet_jax.errors import UserError
from resnet_jax.interop.files import HUB_FILES
from resnet_jax.interop.weights import Weights, is_weights_folder, read_weights
from resnet_jax.models.registry import create_model
from resnet_jax.training.checkpoint import Checkpoints
from resnet_jax.training.facts import facts_of, read_facts
from resnet_jax.training.importing import import_weights
from resnet_jax.training.mesh import make_mesh, replicated
from resnet_jax.training.record import CHECKPOINTS, RunRecord
from resnet_jax.training.state import init_state
from resnet_jax.training.trainer import make_trainer
from resnet_jax.training.tuning import make_tuned_optimizer


def load_weights(path: str | Path, model: str | None = None) -> Weights:
    """Trained weights: `load_weights(path).create_model().apply(weights.variables, images)`.

    Args:
      path: a folder that `convert` or `save_weights` wrote, the folder of a run, or what `importing.import_weights`
        takes: a file of PyTorch's, safetensors, Flax's, or `hf:OWNER/NAME[@REVISION][:FILE]`.
      model: the net that they must be of; unset: any.

    Raises:
      UserError: if it is none of these, of another net, or damaged.
    """
    folder = Path(path).expanduser()
    if is_weights_folder(folder):
        weights = read_weights(folder)
    elif (folder / "config.json").is_file() and not any((folder / name).is_file() for name in HUB_FILES):
        weights = weights_of_run(folder)
    elif folder.is_dir() and not any(folder.iterdir()):
        raise UserError(f"{path} holds neither weights (weights.json) nor a run (config.json)")
    else:
        return import_weights(path, model).weights
    if model is not None and weights.model != model:
        raise UserError(f"{path} holds weights of {weights.model}, not of {model}")
    return weights


def weights_of_run(workdir: str | Path) -> Weights:
    """The weights of a run's newest checkpoint that can be read, as they are evaluated.

    The data set is opened only for a run of a version that kept no `data.json`.

    Raises:
      UserError: if the folder holds no run, or a run without a checkpoint.
    """
    record = RunRecord(workdir)
    config = record.config()
    directory = record.workdir / CHECKPOINTS
    if not directory.is_dir():
        raise UserError(f"{workdir} holds no checkpoint yet; train it first")
    facts = read_facts(workdir) or facts_of(make_trainer(config))
    fields = model_overrides(config) | {"num_classes": facts.num_classes}
    model = create_model(config.model.name, **fields)
    height, width, channels = facts.image_shape
    like = jax.eval_shape(
        lambda: init_state(
            model, make_tuned_optimizer(config), config.seed, (height, width, channels),
            config.regularization.ema_decay > 0,
        )
    )  # fmt: skip
    checkpoints = Checkpoints(directory, config.keep_checkpoints, read_only=True)
    restored = checkpoints.restore(like, replicated(make_mesh()))
    checkpoints.close()
    if restored is None:
        raise UserError(f"{workdir} holds no checkpoint yet; train it first")
    source = {
        "run": record.workdir.name, "config_hash": config_hash(config), "dataset": config.data.name,
        "steps": int(restored.state.step),
    }  # fmt: skip
    variables = jax.device_get(restored.state.tested_variables)
    return Weights(
        config.model.name, fields, variables, height, facts.mean, facts.std, facts.classes, source
    )  # fmt: skip
