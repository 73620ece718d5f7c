"""Grad-CAM: where in an image a net sees a class (Selvaraju et al. 2017, "Grad-CAM", section 3).

With y the logit of the class and A the features of a layer, the weight alpha_k of channel k is the mean over positions
of dy / dA_k (equation 1), and the map is ReLU(sum_k alpha_k A_k) (equation 2). At the last stage of a net that ends in
global average pooling and one linear layer, this is the positive part of the class activation map of Zhou et al. 2016
divided by the number of positions.
"""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jax import Array

from resnet_jax.analysis.layer_outputs import shifted_outputs
from resnet_jax.errors import unknown_name
from resnet_jax.models.features import forward_with_features
from resnet_jax.models.resnet import ResNet
from resnet_jax.models.scan import unrolled


def grad_cam(
    model: nn.Module, variables: Mapping[str, Any], images: Array, classes: Array | np.ndarray, layer: str | None = None
) -> Array:
    """Computes maps of where each image supports its class, float32 (batch, height, width), 0 or more.

    Height and width are the layer's. The scale has no meaning: show maps divided by their maximum. A map of zeros means
    that nothing supports the class.

    Args:
      model: a net of this package.
      variables: its variables.
      images: (batch, height, width, channels), normalised as for training.
      classes: labels, (batch,).
      layer: path of a layer with spatial output, `stage3` or `stage4/block2/bn1`; None: the last one, `final` of a
        residual net and the last stage of VGG.

    Raises:
      UserError: if there is no such layer.
    """
    if isinstance(model, ResNet) and model.remat:
        model = model.clone(remat=False)  # outputs inside a rematerialised unit cannot be captured
    model = unrolled(model)
    if layer is None:
        layer = "final" if isinstance(model, ResNet) else f"stage{len(model.stage_sizes)}"

    features = jax.eval_shape(lambda v, x: forward_with_features(model, v, x)[1], variables, images)
    outputs = {path: output for path, output in features.items() if output.ndim == 4}
    if layer not in outputs:
        raise unknown_name("layer with positions", layer, outputs)

    def score(moved: Array) -> tuple[Array, Array]:
        """Returns the sum of the images' logits with the layer's output moved, and that output."""
        with shifted_outputs([layer], {layer: moved}) as found:
            logits: Any = model.apply(variables, images, train=False)
        return jnp.take_along_axis(logits, jnp.asarray(classes)[:, None], axis=1).sum(), found[layer]

    like = outputs[layer]
    gradient, features = jax.grad(score, has_aux=True)(jnp.zeros(like.shape, like.dtype))
    alpha = gradient.astype(jnp.float32).mean(axis=(1, 2), keepdims=True)
    return jax.nn.relu((alpha * features.astype(jnp.float32)).sum(axis=-1))
