"""Named intermediate features of a forward pass."""

from collections.abc import Callable, Mapping
from typing import Any

from flax import linen as nn
from flax import traverse_util
from jax import Array

from resnet_jax.models.scan import unrolled


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
