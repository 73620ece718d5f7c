"""What a net computes on the way to its logits: by name, by stage, and as one vector."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import jax.numpy as jnp
from flax import linen as nn
from flax import traverse_util
from jax import Array

from resnet_jax.errors import UserError
from resnet_jax.models.blocks import BLOCKS
from resnet_jax.models.resnet import ResNet
from resnet_jax.models.scan import unrolled
from resnet_jax.models.strides import output_strides, stage_strides


@dataclasses.dataclass(frozen=True)
class FeatureInfo:
    """What a net with `features_only` gives of one stage.

    Attributes:
      name: `C2` to `C5` for the four stages of an ImageNet net, as detectors call the outputs of conv2_x to conv5_x
        in table 1 of the 2015 paper; `C2` to `C4` for the three of a CIFAR net.
      path: of the stage's parameters, `stage1`.
      stride: pixels of the image from one position to the next.
      dilation: of the stage's last kernel.
      channels: features at a position.
    """

    name: str
    path: str
    stride: int
    dilation: int
    channels: int


def feature_info(model: nn.Module) -> tuple[FeatureInfo, ...]:
    """Strides and channels of what `create_model(..., features_only=True)` gives, the finest first.

    Raises:
      UserError: for a net without residual stages, VGG.
    """
    if not isinstance(model, ResNet):
        raise UserError(f"{type(model).__name__} has no residual stages; forward_with_features gives layers by name")
    multiple = BLOCKS[model.block][-1][1]
    stages = zip(model.widths, output_strides(model), stage_strides(model), strict=True)
    return tuple(
        FeatureInfo(f"C{i + 1}", f"stage{i}", stride, dilations[1], width * multiple)
        for i, (width, stride, (_, dilations)) in enumerate(stages, start=1)
    )


def forward_with_features(
    model: nn.Module,
    variables: Mapping[str, Any],
    images: Array,
    select: Callable[[str], bool] = lambda name: True,
) -> tuple[Array, dict[str, Array]]:
    """Logits, and the output of every module by its path, in testing mode.

    A path is that of the module's parameters: `stem`, `stage2`, `stage2/block1`, `stage2/block1/bn1` (the
    response before the nonlinearity, as in figure 7 of the 2015 paper), `final`, `head`.

    Args:
      model: a net of this package.
      variables: its variables, `{"params": ..., "batch_stats": ...}`.
      images: (batch, height, width, channels).
      select: which paths to keep; all by default.

    Returns:
      Logits (batch, num_classes), and a dict from path to output.
    """
    logits, state = unrolled(model).apply(
        variables,
        images,
        train=False,
        capture_intermediates=lambda module, method: method == "__call__" and select("/".join(module.path)),
        mutable=["intermediates"],
    )
    flat = traverse_util.flatten_dict(state.get("intermediates", {}))
    # Flax stores each output as a tuple under "__call__"; the net itself has the empty path and is the logits.
    return logits, {"/".join(path[:-1]): value[0] for path, value in flat.items() if len(path) > 1}


def forward_with_embeddings(model: nn.Module, variables: Mapping[str, Any], images: Array) -> tuple[Array, Array]:
    """Logits (batch, num_classes), and the vectors (batch, features) that the classifier makes them of, float32.

    For a residual net those are the last stage's features, averaged over all positions; for VGG the second hidden
    layer's, behind its ReLU. A net without a classifier gives them as its logits, too.

    Args:
      model: a net of this package.
      variables, images: see `forward_with_features`.
    """
    found: list[Array] = []

    def record(next_call: Any, args: Any, kwargs: Any, context: Any) -> Any:
        if context.module.path == ("head",):
            found.append(args[0])
        return next_call(*args, **kwargs)

    with nn.intercept_methods(record):
        logits: Any = model.apply(variables, images, train=False)
    return logits, (found[0] if found else logits).astype(jnp.float32)
