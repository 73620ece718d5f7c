"""Fine-tuning: frozen parts of a net, and learning rates by depth."""

import fnmatch
from typing import Any, TypeVar

import jax
import optax
from flax import linen as nn
from jax import Array
from ml_collections import ConfigDict

from resnet_jax.errors import UserError, some
from resnet_jax.models.norm import BatchNorm
from resnet_jax.models.scan import unrolled
from resnet_jax.training.optimizer import make_optimizer

State = TypeVar("State")


def changes_training(config: ConfigDict) -> bool:
    """Returns whether parts of the net are frozen, or have a learning rate of their own."""
    tune = config.finetune
    freezes = tune.frozen or tune.linear_probe or tune.freeze_statistics
    return bool(freezes) or tune.layer_decay != 1 or tune.head_rate != 1


#: Layers whose outputs are the classes.
CLASS_LAYERS = ("head", "head_boxes", "aux_head")

#: How the names of parts begin, from the images to the classifier.
KINDS = ("stem", "stage", "fc", "head")

#: Parts of nets behind the last stage, which depend on the task.
HEAD_PARTS = (*CLASS_LAYERS, "decoder", "aux", "fpn", "rpn", "region_head")


def is_head(name: str) -> bool:
    """Returns whether a parameter or layer (`head/kernel`) is behind the last stage."""
    return name.split("/")[0] in HEAD_PARTS


def is_frozen(config: ConfigDict, name: str) -> bool:
    """Returns whether a parameter or layer is frozen.

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
    """Returns the entries of `config.finetune.frozen`."""
    return [pattern.strip() for pattern in config.frozen.split(",") if pattern.strip()]


def groups(params: Any) -> list[str]:
    """Returns the parts of a net that `layer_decay` counts, from the images to the classifier: stem, stage1, ..., head.

    A batch norm behind the last unit (`final`) has the last stage's rate and is left out. Parts that no net here has
    come last.
    """

    def place(name: str) -> tuple[int, str]:
        return next((i for i, kind in enumerate(KINDS) if name.startswith(kind)), len(KINDS)), name.zfill(8)

    return sorted((name for name in params if name != "final" and (name == "head" or not is_head(name))), key=place)


def rate_multiplier(config: ConfigDict, order: list[str], name: str) -> float:
    """Returns the factor on a parameter's learning rate.

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
    if is_head(part):
        return config.head_rate
    if part == "final":
        part = [p for p in order if p.startswith("stage")][-1]
    return config.layer_decay ** (len(order) - 1 - order.index(part))


def check_parts(config: ConfigDict, params: Any) -> None:
    """Checks `frozen` against a net's parameters, or their shapes.

    Raises:
      UserError: for an entry that names nothing, if nothing is left to train, and for rates by depth of a net of the
        user's own whose depth no name tells.
    """
    names = [_name(path) for path, _ in jax.tree_util.tree_leaves_with_path(params)]
    tune = config.finetune
    unknown = [name for name in groups(params) if not name.startswith(KINDS)]
    if tune.layer_decay != 1 and unknown:
        raise UserError(f"config.finetune.layer_decay counts the parts stem, stage1, ..., head, and this net has "
                        f"{some(unknown, 4)}")  # fmt: skip
    if tune.head_rate != 1 and not any(map(is_head, names)):
        raise UserError(f"config.finetune.head_rate is for the part head, and this net has {some(groups(params), 4)}")
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
    """Returns the config's optimiser with each parameter's own rate, and without state or update for frozen ones.

    Weight decay is part of the update: frozen parameters do not decay, and elsewhere it scales with the rate.

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
    """Wraps a net so that its frozen parts get no gradient and its frozen batch norms use their running statistics.

    A batch norm's statistics are frozen with its scale and bias, because they are part of what the layer computes, and
    with `freeze_statistics` in any case.
    """

    def __init__(self, model: nn.Module, config: ConfigDict) -> None:
        """`config`: `config.finetune`."""
        # Inside a loop, units have no names by which some of them could be frozen.
        self._model, self._config = unrolled(model) if config.frozen else model, config

    def apply(self, variables: Any, images: Array, **options: Any) -> Any:
        """Applies the net, as its own `apply` does."""
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
    """Returns whether a batch norm's statistics are frozen; see `TunedModel`."""
    return config.freeze_statistics or is_frozen(config, name)


def keep_frozen(config: ConfigDict, before: State, after: State) -> State:
    """Returns the state after an update, with what is frozen bit for bit as it was before.

    Neither an average nor a mean over micro-batches may round it.

    Args:
      config: `config.finetune`.
      before, after: the states around the update.
    """
    frozen = {"params": is_frozen, "batch_stats": statistics_frozen}

    def kept(name: str, old: Any, new: Any) -> Any:
        part, _, layer = name.removeprefix("average/").partition("/")
        return old if part in frozen and frozen[part](config, layer) else new

    return _map(kept, before, after)


def _map(function: Any, tree: Any, *others: Any) -> Any:
    """Returns the tree of `function(name, value, ...)`, where names are `stem/conv/kernel`."""
    return jax.tree_util.tree_map_with_path(lambda path, *values: function(_name(path), *values), tree, *others)


def _name(path: Any) -> str:
    return jax.tree_util.keystr(path, simple=True, separator="/")
