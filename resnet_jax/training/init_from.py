"""What a config takes from weights: those that a run starts from, and those of the net that proposes regions."""

import copy
import hashlib
import json
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from ml_collections import ConfigDict

from resnet_jax.config import from_dict, to_dict
from resnet_jax.errors import UserError
from resnet_jax.interop.weights import Weights, flatten_variables
from resnet_jax.training.distributed import agreed, all_agree
from resnet_jax.training.load_weights import load_weights
from resnet_jax.training.run_folder import RunFolder

#: Values of `model.name` and `data.normalization` that take the net, and the normalisation, from the weights.
MODEL_OF_WEIGHTS, NORMALIZATION_OF_WEIGHTS = "init_from", "weights"

#: How the name of a detector begins, ahead of that of the net whose stages it has; the first one unless it is named.
DETECTORS = ("faster_rcnn_", "faster_rcnn_fpn_")

#: Fields of a net that do not change what it computes once it is trained. They are not taken from the weights.
TRAINING_FIELDS = frozenset(
    {"num_classes", "dtype", "precision", "bn_group_size", "remat", "zero_init_last", "init_mode"}
)

#: A photograph's shorter side ahead of the centre crop, as a multiple of the crop's: 256 for 224.
SIDE_OF_CROP = 256 / 224


def resolve(config: ConfigDict, folder: RunFolder | None = None, force: Collection[str] = ()
            ) -> tuple[ConfigDict, Weights | None]:  # fmt: skip
    """Returns the config with everything that it takes from its weights written into it.

    `init_hash` becomes their digest: runs from different weights are different runs, wherever the weights lie. All
    processes call this together.

    Args:
      config: the fields of `config.base_config`; it is not changed.
      folder: the run's, if it has one; its recorded config stands in for weights that are gone.
      force: fields in which the config may differ from the recorded one; `init_hash`: other weights by now.

    Returns:
      The config, and the weights if they were read.

    Raises:
      UserError: for weights that cannot be read, or that no config can describe.
    """
    config = copy.deepcopy(config)
    weights = recorded = None
    if config.init_from is not None and folder is not None:
        found = agreed(lambda: to_dict(folder.config()) if (folder.workdir / "config.json").exists() else None)
        recorded = from_dict(found) if found is not None else None
    if config.init_from is not None and config.init_hash is None:
        gone = not all_agree(Path(config.init_from).expanduser().exists())
        if gone and recorded is not None and recorded.init_from == config.init_from and recorded.init_hash is not None:
            data = recorded.data
            _fill_in(config, recorded.init_hash, recorded.model.name, recorded.model, data.mean, data.std,
                     data.image_size, data.eval_shorter_side)  # fmt: skip
        else:
            weights = _load(config.init_from)
            _fill_in(config, digest(weights), weights.model, weights.fields, _of_channels(weights.mean),
                     _of_channels(weights.std), weights.image_size, weights.shorter_side)  # fmt: skip
    config.detection.proposals_hash = _proposals_hash(config)
    if config.data.eval_shorter_side == 0:
        config.data.eval_shorter_side = round(SIDE_OF_CROP * config.data.image_size)
    if recorded is not None and "init_hash" in force:
        config.init_hash = recorded.init_hash  # what the run did begin with
    return config, weights


def _proposals_hash(config: ConfigDict) -> str | None:
    path, known = config.detection.proposals_from, config.detection.proposals_hash
    return digest(_load(path, "detection.proposals_from")) if path is not None and known is None else known


def _load(path: str, field: str = "init_from") -> Weights:
    """Loads weights in every process at once: all of them read a run's checkpoint together."""
    weights, error = None, None
    try:
        weights = load_weights(path)
    except UserError as raised:
        error = UserError(f"config.{field}: {raised}")
    if not all_agree(weights is not None) or weights is None:
        raise error or UserError(f"another process cannot read config.{field}={path}; what it prints says why")
    return weights


def load_recorded_weights(config: ConfigDict) -> Weights:
    """Loads the weights of a config that was resolved earlier.

    Raises:
      UserError: if they cannot be read, or are others by now.
    """
    return _unchanged(_load(config.init_from), config.init_from, config.init_hash, "init_from")


def load_proposer(config: ConfigDict) -> Weights | None:
    """Loads the weights of the net that proposes the regions of a resolved config, if it is another than is trained.

    Raises:
      UserError: if they cannot be read, or are others by now.
    """
    path, field = config.detection.proposals_from, "detection.proposals_from"
    return None if path is None else _unchanged(_load(path, field), path, config.detection.proposals_hash, field)


def _unchanged(weights: Weights, path: str, recorded: str, field: str) -> Weights:
    if digest(weights) != recorded:
        raise UserError(
            f"config.{field}={path} holds weights {digest(weights)}, and the run began with {recorded}; they have "
            "changed since"
        )
    return weights


def digest(weights: Weights) -> str:
    """Returns 12 hexadecimal digits of everything that a run can take from weights, but not of where they are from."""
    fields = {k: v for k, v in weights.fields.items() if k not in ("dtype", "precision")}
    facts = [weights.model, fields, weights.image_size, list(weights.classes)]
    found = hashlib.sha256(json.dumps(facts, sort_keys=True, default=str).encode())
    arrays = flatten_variables(weights.variables) | {"mean": weights.mean, "std": weights.std}
    for name, array in sorted(arrays.items()):
        found.update(f"{name} {array.shape} ".encode() + np.ascontiguousarray(array, np.float32).tobytes())
    return found.hexdigest()[:12]


def _fill_in(config: ConfigDict, init_hash: str, model: str, fields: Mapping[str, Any], mean: tuple[float, ...],
             std: tuple[float, ...], image_size: int, shorter_side: int | None) -> None:  # fmt: skip
    """Writes into a config what it leaves to its weights; the arguments are facts of these."""
    config.init_hash = init_hash
    if config.task == "detection" and not model.startswith(DETECTORS):
        on_its_stages = [prefix + model for prefix in DETECTORS]
        model = config.model.name if config.model.name in on_its_stages else on_its_stages[0]
    if config.model.name in (MODEL_OF_WEIGHTS, model):
        config.model.name = model
        for field, value in fields.items():
            if field in TRAINING_FIELDS:
                continue
            if field not in config.model:
                raise UserError(
                    f"config.init_from={config.init_from} is a net with {field}={value}, which no config has"
                )
            if config.model[field] is None:
                config.model[field] = tuple(value) if isinstance(value, list | tuple) else value
    if config.data.normalization == NORMALIZATION_OF_WEIGHTS:
        config.data.mean, config.data.std = mean, std
    if config.data.image_size == 0:
        config.data.image_size = image_size
        config.data.eval_shorter_side = config.data.eval_shorter_side or shorter_side or 0


def _of_channels(values: np.ndarray) -> tuple[float, ...]:
    """Returns a number for each channel. A mean image fits only images of its own size, so its mean is taken."""
    means: list[float] = np.asarray(values, np.float64).reshape(-1, values.shape[-1]).mean(axis=0).tolist()
    return tuple(means)
