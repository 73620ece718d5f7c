"""Finds the objects in single images."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from resnet_jax.data.augment import normalize
from resnet_jax.data.buckets import without_padding
from resnet_jax.data.detection.resizing import resize_photograph
from resnet_jax.errors import UserError
from resnet_jax.evaluation.find_objects import Member, Shown, find_objects
from resnet_jax.interop.weights import Weights
from resnet_jax.models.detection.regions import Detections


class Box(NamedTuple):
    """Holds a detection: its class's label, its score, and (x1, y1, x2, y2) in pixels from the upper left corner."""

    label: int
    score: float
    corners: tuple[float, float, float, float]


class BoxPredictor:
    """Detects by a net that is compiled once for each size of images, rounded up to its `side_multiple`."""

    def __init__(self, weights: Weights, refine: bool = False) -> None:
        """Puts the weights on the device.

        Args:
          weights: of a detector.
          refine: see `find_objects.find_objects`.

        Raises:
          UserError: for weights of another task.
        """
        model: Any = weights.create_model()
        if model.task != "detection":
            raise UserError(f"{weights.model} is a net for {model.task}, which finds no boxes")
        self.weights, self._multiple = weights, model.side_multiple
        mean, std = jnp.asarray(weights.mean), jnp.asarray(weights.std)
        self._variables = jax.device_put(weights.variables)

        def forward(variables: Any, pixels: jax.Array, size: jax.Array) -> Detections:
            images = without_padding(normalize(pixels[None], mean, std), size[None])
            found = find_objects([Member(model, variables, Shown(images, size[None]))], refine)
            return jax.tree.map(lambda x: x[0], found)

        self._forward = jax.jit(forward)

    def __call__(self, pixels: np.ndarray) -> list[Box]:
        """Returns the objects in an image, uint8 (height, width, 3), the best first.

        It is resized as `weights.resizing` says: its shorter side has `weights.image_size` pixels, and its longer side
        at most 5/3 of that.

        Raises:
          UserError: if the net's outputs are not finite.
        """
        shown = resize_photograph(pixels, self.weights.image_size, self.weights.resizing)
        height, width = shown.shape[:2]
        padding = [(0, -side % self._multiple) for side in (height, width)]
        padded = np.pad(shown, (*padding, (0, 0)))
        found = jax.device_get(self._forward(self._variables, padded, jnp.array([height, width], jnp.int32)))
        if not np.isfinite(found.scores).all():
            raise UserError(f"{self.weights.model} gives NaN or infinity: its weights are of no use")
        scale = np.array([pixels.shape[1] / width, pixels.shape[0] / height] * 2)
        boxes = (found.boxes * scale).tolist()
        return [Box(int(found.labels[i]), float(found.scores[i]), tuple(boxes[i])) for i in np.flatnonzero(found.valid)]
