"""Fine-tuning inside the step: parts of a net that stay as they are, and learning rates by depth."""

import fnmatch
from typing import Any

import jax
import optax
from flax import linen as nn
from jax import Array
from ml_collections import ConfigDict

from resnet_jax.errors import UserError
from resnet_jax.models.norm import BatchNorm
from resnet_jax.training.optimizer import make_optimizer

#: What becomes of the classifier: "auto" keeps that of the weights if it is of the same classes, by name.
HEADS = ("auto", "new", "keep")


def validate(config: ConfigDict) -> None:
    """Checks the fields of fine-tuning.

    Raises:
      UserError: naming the field, its value, and what would be right.
    """
    tune, data = config.finetune, config.data
    if tune.head not in HEADS:
        raise UserError(f"config.finetune.head={tune.head!r} must be one of {', '.join(HEADS)}")
    if not 0 < tune.layer_decay <= 1:
        raise UserError(f"config.finetune.layer_decay={tune.layer_decay} must be above 0 and at most 1")
    if tune.head_rate <= 0:
        raise UserError(f"config.finetune.head_rate={tune.head_rate} must be above 0")
    if config.early_stopping.patience < 0:
        raise UserError(f"config.early_stopping.patience={config.early_stopping.patience} must be 0 or more")
    if data.resize < 0:
        raise UserError(f"config.data.resize={data.resize} must be 0 or more")
    if not 0 <= data.held_out_share < 1:
        raise UserError(f"config.data.held_out_share={data.held_out_share} must be from 0 to below 1")
    if data.held_out and data.held_out_share:
        raise UserError("config.data.held_out is a number and held_out_share a share of the same: set one of them")
    if data.folder is not None and data.name != "image_folder":
        raise UserError(f"config.data.folder is for config.data.name=image_folder, not {data.name}")
    if config.init_from is None:
        if config.model.name == "init_from":
            raise UserError("set config.init_from to the weights to start from, or config.model.name to a net's name")
        if data.normalization == "weights":
            raise UserError("config.data.normalization=weights needs config.init_from, the weights to start from")
        if data.image_size == 0:
            raise UserError("config.data.image_size=0 is that of the weights: it needs config.init_from")
        if tune.linear_probe or tune.frozen or tune.head == "keep":
            raise UserError("config.finetune.frozen, linear_probe and head=keep need config.init_from: the weights")


def changes_training(config: ConfigDict) -> bool:
    """Whether anything here is on."""
    tune = config.finetune
    return bool(tune.frozen or tune.linear_probe or tune.freeze_statistics) or (tune.layer_decay, tune.head_rate) != (
        1,
        1,
    )


def is_head(name: str) -> bool:
    """Whether a parameter's or layer's name (`head/kernel`) is that of the classifier."""
    return name.split("/")[0] == "head"


def is_frozen(config: ConfigDict, name: str) -> bool:
    """Whether a parameter or layer stays as it is.

    Args:
      config: `config.finetune`.
      name: `stage1/block1/conv1/kernel`, or any layer above it.
    """
    if config.linear_probe and not is_head(name):
        return True
    parts = name.split("/")
    above = ["/".join(parts[:i]) for i in range(1, len(parts) + 1)]
    return any(fnmatch.fnmatchcase(prefix, pattern) for pattern in patterns(config) for prefix in above)


def patterns(config: ConfigDict) -> list[str]:
    """The entries of `config.finetune.frozen`."""
    return [pattern.strip() for pattern in config.frozen.split(",") if pattern.strip()]


def groups(params: Any) -> list[str]:
    """The parts of a net that `layer_decay` counts, from the images to the classifier: stem, stage1, ..., head.

    A batch norm behind the last unit (`final`) is of the last stage's rate.
    """

    def place(name: str) -> tuple[int, str]:
        kinds = ("stem", "stage", "fc", "head")
        return next(i for i, kind in enumerate(kinds) if name.startswith(kind)), name.zfill(8)

    return sorted((name for name in params if name != "final"), key=place)


def rate_multiplier(config: ConfigDict, order: list[str], name: str) -> float:
    """What the learning rate of a parameter is multiplied by.

    `layer_decay ** d`, where d counts the parts of the net from the classifier down: 0 for the head, 1 for the last
    stage, up to the number of stages plus one for the stem (discriminative fine-tuning, Howard and Ruder 2018, section
    3.2, with a factor of 1/2.6 for each layer; the layer-wise decay of Bao et al. 2022, BEiT). The head's is
    `head_rate`.

    Args:
      config: `config.finetune`.
      order: see `groups`.
      name: of the parameter.
    """
    part = name.split("/")[0]
    if part == "head":
        return config.head_rate
    if part == "final":
        part = [p for p in order if p.startswith("stage")][-1]
    return config.layer_decay ** (len(order) - 1 - order.index(part))


def check_parts(config: ConfigDict, params: Any) -> None:
    """Checks `frozen` against the parameters that there are, or their shapes.

    Raises:
      UserError: for an entry that names nothing, and if nothing is left to train.
    """
    names = [_name(path) for path, _ in jax.tree_util.tree_leaves_with_path(params)]
    tune = config.finetune
    for pattern in patterns(tune):
        one = ConfigDict({"linear_probe": False, "frozen": pattern})
        if not any(is_frozen(one, name) for name in names):
            raise UserError(
                f"config.finetune.frozen has {pattern!r}, which is no part of {config.model.name}: its parts are "
                f"{', '.join(groups(params))}, and below them names as {names[-1]}"
            )
    if all(is_frozen(tune, name) for name in names):
        raise UserError(f"config.finetune.frozen={tune.frozen} leaves nothing to train")


def make_tuned_optimizer(config: ConfigDict) -> optax.GradientTransformation:
    """The config's optimiser, without state or update for what is frozen, and with each parameter's own rate.

    The decay belongs to the update: what is frozen does not decay, and decays elsewhere scale with the rate.

    Args:
      config: the whole config.
    """
    optimizer, tune = make_optimizer(config.optimizer), config.finetune
    if tune.frozen or tune.linear_probe:
        optimizer = optax.multi_transform(
            {"trained": optimizer, "frozen": optax.set_to_zero()},
            lambda params: _map(lambda name, _: "frozen" if is_frozen(tune, name) else "trained", params),
        )
    if (tune.layer_decay, tune.head_rate) == (1, 1):
        return optimizer

    def scale(updates: Any, params: Any) -> Any:
        order = groups(updates)
        return _map(lambda name, update: update * rate_multiplier(tune, order, name), updates)

    return optax.chain(optimizer, optax.stateless(scale))


class TunedModel:
    """A net whose frozen parts get no gradient, and whose frozen batch norms use their running statistics.

    A batch norm is frozen with its scale and bias, as its statistics are part of what the layer computes, and, with
    `freeze_statistics`, in any case.
    """

    def __init__(self, model: nn.Module, config: ConfigDict) -> None:
        """`config`: `config.finetune`."""
        self._model, self._config = model, config

    def apply(self, variables: Any, images: Array, **options: Any) -> Any:
        """As that of the net."""
        tune = self._config

        def cut(name: str, value: Array) -> Array:
            # Nothing is computed for a gradient that is not asked for: below the last frozen layer, no backward pass.
            return jax.lax.stop_gradient(value) if is_frozen(tune, name) else value

        def with_running_statistics(
            function: Any, args: Any, options: Any, context: nn.module.InterceptorContext
        ) -> Any:
            if isinstance(context.module, BatchNorm) and context.method_name == "__call__":
                if statistics_frozen(tune, "/".join(context.module.path)):
                    return function(args[0], False, **options)
            return function(*args, **options)

        with nn.intercept_methods(with_running_statistics):
            return self._model.apply({**variables, "params": _map(cut, variables["params"])}, images, **options)


def statistics_frozen(config: ConfigDict, name: str) -> bool:
    """Whether a batch norm's statistics stay as they are; see `TunedModel`."""
    return config.freeze_statistics or is_frozen(config, name)


def keep_frozen(config: ConfigDict, old: Any, new: Any) -> Any:
    """`new` with what is frozen taken from `old`: neither an average nor a mean over micro-batches may round it.

    Args:
      config: `config.finetune`.
      old, new: `{"params": ..., "batch_stats": ...}`.
    """
    kept = {"params": is_frozen, "batch_stats": statistics_frozen}
    return {
        part: jax.tree_util.tree_map_with_path(
            lambda path, a, b, part=part: a if kept[part](config, _name(path)) else b, old[part], new[part]
        )
        for part in new
    }


def _map(function: Any, tree: Any) -> Any:
    return jax.tree_util.tree_map_with_path(lambda path, value: function(_name(path), value), tree)


def _name(path: Any) -> str:
    return "/".join(key.key for key in path)
