"""Names the class of every pixel of single images."""

from typing import Any

import cv2
import jax
import jax.numpy as jnp
import numpy as np

from resnet_jax.data.augment import normalize
from resnet_jax.errors import UserError
from resnet_jax.evaluation.segmentation import probabilities
from resnet_jax.interop.weights import Weights

#: The longer side in pixels above which an image is shrunk before the net sees it: VOC's have 500, Cityscapes' 2,048.
LARGEST = 1024


class MaskPredictor:
    """Predicts by a net that is compiled once for each size of images."""

    def __init__(self, weights: Weights) -> None:
        """Puts the weights on the device.

        Raises:
          UserError: for weights of another task.
        """
        model: Any = weights.create_model()
        if model.task != "segmentation":
            raise UserError(f"{weights.model} is a net for {model.task}, which names no pixels")
        self.weights = weights
        mean, std = jnp.asarray(weights.mean), jnp.asarray(weights.std)
        self._variables = jax.device_put(weights.variables)

        def forward(variables: Any, pixels: jax.Array) -> tuple[jax.Array, jax.Array]:
            found = probabilities(model, variables, normalize(pixels, mean, std))[0]
            return jnp.argmax(found, axis=-1).astype(jnp.uint8), jnp.isfinite(found).all()

        self._forward = jax.jit(forward)

    def __call__(self, pixels: np.ndarray) -> np.ndarray:
        """Returns the label of each pixel, uint8 (height, width).

        An image whose longer side has more than `LARGEST` pixels is shrunk first, and its labels are spread again.

        Args:
          pixels: uint8 (height, width, 3).

        Raises:
          UserError: if the net's outputs are not finite.
        """
        height, width = pixels.shape[:2]
        factor = min(1.0, LARGEST / max(height, width))
        if factor < 1:
            size = (max(1, round(width * factor)), max(1, round(height * factor)))
            pixels = cv2.resize(pixels, size, interpolation=cv2.INTER_AREA)
        labels, finite = self._forward(self._variables, pixels[None])
        if not finite:
            raise UserError(f"{self.weights.model} gives NaN or infinity: its weights are of no use")
        return cv2.resize(np.asarray(labels), (width, height), interpolation=cv2.INTER_NEAREST_EXACT)
