"""Starts a run from given weights: what its config takes from them, and the state before the first step."""

import copy
import hashlib
import json
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import traverse_util
from ml_collections import ConfigDict

from resnet_jax.config import from_dict, to_dict
from resnet_jax.errors import UserError
from resnet_jax.interop.weights import Weights, flatten_variables
from resnet_jax.training.finetune import is_head
from resnet_jax.training.load_weights import load_weights
from resnet_jax.training.multihost import agreed, all_agree
from resnet_jax.training.run_folder import RunFolder
from resnet_jax.training.state import AveragedTrainState, TrainState

#: Values of `model.name` and `data.normalization` that take the net, and the normalisation, from the weights.
MODEL_OF_WEIGHTS, NORMALIZATION_OF_WEIGHTS = "init_from", "weights"

#: Fields of a net that do not change what it computes once it is trained. They are not taken from the weights.
TRAINING_FIELDS = frozenset({"num_classes", "dtype", "bn_group_size", "remat", "zero_init_last", "init_mode"})

#: A photograph's shorter side ahead of the centre crop, as a multiple of the crop's: 256 for 224.
SIDE_OF_CROP = 256 / 224


def resolve(config: ConfigDict, recorded: ConfigDict | None = None) -> tuple[ConfigDict, Weights | None]:
    """Returns the config with everything that it takes from its weights written into it.

    `init_hash` becomes their digest: runs from different weights are different runs, wherever the weights lie. All
    processes call this together.

    Args:
      config: the fields of `config.base_config`; it is not changed.
      recorded: the config of the run in the folder, which stands in for weights that are gone.

    Returns:
      The config, and the weights if they were read.

    Raises:
      UserError: for weights that cannot be read, or that no config can describe.
    """
    config = copy.deepcopy(config)
    weights = None
    if config.init_from is not None and config.init_hash is None:
        gone = not all_agree(Path(config.init_from).expanduser().exists())
        if gone and recorded is not None and recorded.init_from == config.init_from and recorded.init_hash is not None:
            _take_recorded(config, recorded)
        else:
            weights = _load(config.init_from)
            _take_over(config, weights)
    if config.data.eval_shorter_side == 0:
        config.data.eval_shorter_side = round(SIDE_OF_CROP * config.data.image_size)
    return config, weights


def resolve_in(folder: RunFolder, config: ConfigDict, force: Collection[str] = ()) -> tuple[ConfigDict, Weights | None]:
    """Does what `resolve` does, for a run whose own record may stand in for weights that are gone.

    Args:
      folder: the run's; it may hold no run yet.
      config: see `resolve`.
      force: fields in which the config may differ from the recorded one; `init_hash`: other weights by now.
    """
    recorded = None
    if config.init_from is not None:
        found = agreed(lambda: to_dict(folder.config()) if (folder.workdir / "config.json").exists() else None)
        recorded = from_dict(found) if found is not None else None
    config, weights = resolve(config, recorded)
    if recorded is not None and "init_hash" in force:
        config.init_hash = recorded.init_hash  # what the run did begin with
    return config, weights


def _load(path: str) -> Weights:
    """Loads weights in every process at once: all of them read a run's checkpoint together."""
    weights, error = None, None
    try:
        weights = load_weights(path)
    except UserError as raised:
        error = UserError(f"config.init_from: {raised}")
    if not all_agree(weights is not None) or weights is None:
        raise error or UserError(f"another process cannot read config.init_from={path}; what it prints says why")
    return weights


def load_recorded_weights(config: ConfigDict) -> Weights:
    """Loads the weights of a config that was resolved earlier.

    Raises:
      UserError: if they cannot be read, or are others by now.
    """
    weights = _load(config.init_from)
    if digest(weights) != config.init_hash:
        raise UserError(
            f"config.init_from={config.init_from} holds weights {digest(weights)}, and the run began with "
            f"{config.init_hash}; they have changed since"
        )
    return weights


def digest(weights: Weights) -> str:
    """Returns 12 hexadecimal digits of everything that a run can take from weights, but not of where they are from."""
    fields = {k: v for k, v in weights.fields.items() if k != "dtype"}
    facts = [weights.model, fields, weights.image_size, list(weights.classes)]
    found = hashlib.sha256(json.dumps(facts, sort_keys=True, default=str).encode())
    arrays = flatten_variables(weights.variables) | {"mean": weights.mean, "std": weights.std}
    for name, array in sorted(arrays.items()):
        found.update(f"{name} {array.shape} ".encode() + np.ascontiguousarray(array, np.float32).tobytes())
    return found.hexdigest()[:12]


def _take_over(config: ConfigDict, weights: Weights) -> None:
    config.init_hash = digest(weights)
    if config.model.name in (MODEL_OF_WEIGHTS, weights.model):
        config.model.name = weights.model
        for field, value in weights.fields.items():
            if field in TRAINING_FIELDS:
                continue
            if field not in config.model:
                raise UserError(
                    f"config.init_from={config.init_from} is a net with {field}={value}, which no config has"
                )
            if config.model[field] is None:
                config.model[field] = tuple(value) if isinstance(value, list | tuple) else value
    if config.data.normalization == NORMALIZATION_OF_WEIGHTS:
        config.data.mean, config.data.std = (_of_channels(values) for values in (weights.mean, weights.std))
    if config.data.image_size == 0:
        config.data.image_size = weights.image_size


def _of_channels(values: np.ndarray) -> tuple[float, ...]:
    """Returns a number for each channel. A mean image fits only images of its own size, so its mean is taken."""
    means: list[float] = np.asarray(values, np.float64).reshape(-1, values.shape[-1]).mean(axis=0).tolist()
    return tuple(means)


def _take_recorded(config: ConfigDict, recorded: ConfigDict) -> None:
    """Takes from the recorded config what `_take_over` took when the run began."""
    config.init_hash = recorded.init_hash
    if config.model.name == MODEL_OF_WEIGHTS:
        config.model.name = recorded.model.name
    if config.model.name == recorded.model.name:
        for field in set(recorded.model) - TRAINING_FIELDS:
            if config.model[field] is None and recorded.model[field] is not None:
                config.model[field] = recorded.model[field]
    if config.data.normalization == NORMALIZATION_OF_WEIGHTS:
        config.data.mean, config.data.std = recorded.data.mean, recorded.data.std
    if config.data.image_size == 0:
        config.data.image_size = recorded.data.image_size


def keeps_head(weights: Weights, config: ConfigDict, num_classes: int, classes: Sequence[str]) -> bool:
    """Returns whether the weights' classifier is kept: if asked for, or if its classes have the same names.

    Raises:
      UserError: if it is asked for and has another number of outputs.
    """
    wanted = config.finetune.head
    if wanted == "keep" and weights.num_classes != num_classes:
        raise UserError(
            f"config.finetune.head=keep, but the weights have {weights.num_classes} classes and {config.data.name} "
            f"{num_classes}; head=new, or auto, makes a new one"
        )
    same = bool(classes) and tuple(weights.classes) == tuple(classes) and weights.num_classes == num_classes
    return wanted == "keep" or (wanted == "auto" and same)


def check_weights(weights: Weights, config: ConfigDict, shapes: Mapping[str, Any], classes: Sequence[str]) -> None:
    """Checks that the net can take the weights.

    Args:
      weights: the weights.
      config: the config, resolved.
      shapes: the net's variables, or their shapes.
      classes: names of the set's classes.

    Raises:
      UserError: naming what is missing, what is too much and what has another shape, in one message.
    """
    ours = {k: tuple(v.shape) for k, v in traverse_util.flatten_dict(dict(shapes), sep="/").items()}
    theirs = {k: tuple(v.shape) for k, v in flatten_variables(weights.variables).items()}
    num_classes = ours["params/head/bias"][0]
    if not keeps_head(weights, config, num_classes, classes):
        ours, theirs = ({k: v for k, v in x.items() if not _of_head(k)} for x in (ours, theirs))
    other = [f"{k} ({theirs[k]} there, {ours[k]} here)" for k in sorted(ours) if theirs.get(k, ours[k]) != ours[k]]
    found = (
        ("it lacks", sorted(ours.keys() - theirs.keys())),
        ("it has beyond the net", sorted(theirs.keys() - ours.keys())),
        ("other shapes", other),
    )
    problems = [f"{what} {_some(names)}" for what, names in found if names]
    stem = "params/stem/conv/kernel"
    if stem in ours and theirs.get(stem, ours[stem])[2] == 3 and ours[stem][2] == 1:
        problems.append("config.data.rgb=True makes RGB of grey images")
    if problems:
        raise UserError(
            f"config.init_from={config.init_from} ({weights.model}) does not fit {config.model.name} as the config has "
            f"it: {'; '.join(problems)}"
        )


def with_weights(state: TrainState, weights: Weights, config: ConfigDict, classes: Sequence[str]) -> TrainState:
    """Returns a state with all variables but those of a new head from the weights. An average starts there, too.

    Raises:
      UserError: see `check_weights`.
    """
    variables = {"params": state.params, "batch_stats": state.batch_stats}
    check_weights(weights, config, variables, classes)
    theirs = flatten_variables(weights.variables)
    num_classes = state.params["head"]["bias"].shape[0]
    if not keeps_head(weights, config, num_classes, classes):
        theirs = {k: v for k, v in theirs.items() if not _of_head(k)}

    def take(path: Any, value: jax.Array) -> jax.Array:
        name = "/".join(key.key for key in path)
        return jnp.array(theirs[name], value.dtype) if name in theirs else value

    new = jax.tree_util.tree_map_with_path(take, variables)
    state = state.replace(**new)
    if isinstance(state, AveragedTrainState):
        # A copy: the step donates its state's memory, and no memory can be donated twice.
        state = state.replace(average=jax.tree.map(jnp.copy, new))
    return state


def _of_head(name: str) -> bool:
    return is_head(name.removeprefix("params/").removeprefix("batch_stats/"))


def _some(names: Sequence[str]) -> str:
    more = f" and {len(names) - 4} more" if len(names) > 4 else ""
    return ", ".join(names[:4]) + more
