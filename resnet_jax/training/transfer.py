"""The state that starts from the weights of another net: what of them is taken, and what is new."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
from flax import traverse_util
from jax import Array
from ml_collections import ConfigDict

from resnet_jax.errors import UserError, some
from resnet_jax.interop.weights import Weights, classes_of_head, flatten_variables
from resnet_jax.training.finetune import CLASS_LAYERS, HEAD_PARTS

if TYPE_CHECKING:
    from resnet_jax.training.step import TrainState


def keeps_head(weights: Weights, config: ConfigDict, num_classes: int, classes: Sequence[str]) -> bool:
    """Returns whether the weights' classifier is kept: if asked for, or if its classes have the same names.

    Raises:
      UserError: if it is asked for and has another number of outputs.
    """
    wanted = config.finetune.head
    other: Any = weights.create_model()
    if other.task != config.task:
        if wanted == "keep":
            raise UserError(f"config.finetune.head=keep, but {weights.model} is a net for {other.task}")
        return False
    if wanted == "keep" and weights.num_classes != num_classes:
        has = f"{weights.num_classes} classes" if weights.num_classes else "no classifier"
        raise UserError(
            f"config.finetune.head=keep, but the weights have {has} and {config.data.name} "
            f"{num_classes}; head=new, or auto, makes a new one"
        )
    same = bool(classes) and tuple(weights.classes) == tuple(classes) and weights.num_classes == num_classes
    return wanted == "keep" or (wanted == "auto" and same)


def new_parts(
    weights: Weights, config: ConfigDict, shapes: Mapping[str, Any], classes: Sequence[str]
) -> tuple[str, ...]:
    """Checks that a net can take the weights, and returns its parts that start from random numbers instead.

    These are the layers whose outputs are the classes, unless the weights' are kept; and of the other parts behind the
    last stage (an RPN, a pyramid, a decoder) those that the weights lack or have in other shapes.

    Args:
      weights: the weights.
      config: the config, resolved.
      shapes: the net's variables, or their shapes.
      classes: names of the set's classes.

    Raises:
      UserError: naming what is missing, what is too much and what has another shape, in one message.
    """
    ours, theirs = (_shapes(x) for x in (shapes, weights.variables))
    new: tuple[str, ...] = ()
    if not keeps_head(weights, config, classes_of_head(shapes["params"]), classes):
        new = tuple(p for p in HEAD_PARTS if p in CLASS_LAYERS or _of_part(ours, p) != _of_part(theirs, p))
        ours, theirs = ({k: v for k, v in x.items() if _part(k) not in new} for x in (ours, theirs))
    other = [f"{k} ({theirs[k]} there, {ours[k]} here)" for k in sorted(ours) if theirs.get(k, ours[k]) != ours[k]]
    found = (
        ("it lacks", sorted(ours.keys() - theirs.keys())),
        ("it has beyond the net", sorted(theirs.keys() - ours.keys())),
        ("other shapes", other),
    )
    problems = [f"{what} {some(names, 4)}" for what, names in found if names]
    stem = "params/stem/conv/kernel"
    if stem in ours and theirs.get(stem, ours[stem])[2] == 3 and ours[stem][2] == 1:
        problems.append("config.data.rgb=True makes RGB of grey images")
    if problems:
        raise UserError(
            f"config.init_from={config.init_from} ({weights.model}) does not fit {config.model.name} as the config has "
            f"it: {'; '.join(problems)}"
        )
    return tuple(part for part in new if part in shapes["params"])


def with_weights(state: "TrainState", weights: Weights, config: ConfigDict, classes: Sequence[str]) -> "TrainState":
    """Returns a state with all variables but those of `new_parts` from the weights. An average starts there, too.

    Raises:
      UserError: see `new_parts`.
    """
    theirs, new = flatten_variables(weights.variables), new_parts(weights, config, state.variables, classes)

    def take(path: Any, value: Array) -> Array:
        name = jax.tree_util.keystr(path, simple=True, separator="/")
        return value if _part(name) in new else jnp.array(theirs[name], value.dtype)

    return state.starting_from(jax.tree_util.tree_map_with_path(take, state.variables))


def _shapes(variables: Mapping[str, Any]) -> dict[str, tuple[int, ...]]:
    return {k: tuple(v.shape) for k, v in traverse_util.flatten_dict(dict(variables), sep="/").items()}


def _part(name: str) -> str:
    return name.split("/")[1]  # behind "params" or "batch_stats"


def _of_part(shapes: dict[str, tuple[int, ...]], part: str) -> dict[str, tuple[int, ...]]:
    return {name: shape for name, shape in shapes.items() if _part(name) == part}
