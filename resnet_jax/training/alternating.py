"""The four steps of alternating training (Ren et al. 2015, section 3.2): what has no loss is frozen, and who proposes.

A step is a run of its own. What it trains is `config.detection.trained`, and who proposes its regions
`config.detection.proposals_from`.
"""

import dataclasses
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from flax import traverse_util
from ml_collections import ConfigDict

from resnet_jax.data.streaming import normalization_of
from resnet_jax.errors import UserError, some
from resnet_jax.interop.weights import Weights, flatten_variables, unflatten_variables
from resnet_jax.training.finetune import is_frozen

Data = TypeVar("Data")


def proposed_by(weights: Weights | None, config: ConfigDict, batches: Any) -> tuple[Any, dict[str, Any]]:
    """Returns batches whose regions another net proposes, and what they need of it on the devices.

    Without weights, nothing changes.

    Args:
      weights: of a detector.
      config: the config.
      batches: `BoxBatches`, or a pipeline that is one.

    Raises:
      UserError: for weights of no detector, and for one that sees images normalised in another way.
    """
    if weights is None:
        return batches, {}
    net: Any = weights.create_model(dtype=config.dtype, precision=config.precision)
    if net.task != "detection":
        raise UserError(
            f"config.detection.proposals_from={config.detection.proposals_from} holds {weights.model}, which is a net "
            f"for {net.task}: a detector proposes regions"
        )
    ours, theirs = normalization_of(config.data), (weights.mean, weights.std)
    if not all(np.allclose(one, other, atol=1e-4) for one, other in zip(ours, theirs, strict=True)):
        raise UserError(
            f"config.detection.proposals_from={config.detection.proposals_from} is a net of images normalised by "
            f"mean {weights.mean} and deviation {weights.std}, and here they are by {ours[0]} and {ours[1]}: one "
            "config.data.normalization must do for both"
        )
    needed = _names(_proposing(net, (64, 64, weights.channels)))
    flat = {name: array for name, array in flatten_variables(weights.variables).items() if name in needed}
    return dataclasses.replace(batches, proposer=net), {"proposer": unflatten_variables(flat)}


def check_losses(config: ConfigDict, model: nn.Module, image_shape: tuple[int, ...]) -> None:
    """Checks that all that no loss reaches is frozen: weight decay alone would shrink it.

    Raises:
      UserError: naming the parts that are not.
    """
    trained = config.detection.trained
    if trained == "joint":
        return
    shapes = jax.eval_shape(lambda: model.init(jax.random.key(0), jnp.zeros((1, *image_shape))))
    names = _names({"params": shapes["params"]})
    proposing = _names({"params": _proposing(model, image_shape)["params"]})
    idle = names - proposing if trained == "rpn" else {name for name in names if name.startswith("params/rpn/")}
    left = {name.removeprefix("params/") for name in idle}
    left = {name.split("/")[0] for name in left if not is_frozen(config.finetune, name)}
    if left:
        raise UserError(
            f"config.detection.trained={trained} has no loss for {some(sorted(left), 6)}, which weight decay would "
            f"shrink: add {','.join(sorted(left))} to config.finetune.frozen"
        )


def _proposing(net: nn.Module, image_shape: tuple[int, ...]) -> Any:
    """Returns the shapes of the variables that proposals are computed from."""
    arguments = (jnp.zeros((1, *image_shape)), jnp.full((1, 2), image_shape[0], jnp.int32))
    return jax.eval_shape(lambda: net.init(jax.random.key(0), arguments, part="propose_regions"))


def _names(variables: Any) -> set[str]:
    return set(traverse_util.flatten_dict(dict(variables), sep="/"))
