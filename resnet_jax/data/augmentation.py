"""What a training step does to its images, whatever pipeline they come by."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from resnet_jax.data.augment import normalize, pad_crop_flip
from resnet_jax.data.colour import shift_colours
from resnet_jax.data.colour_jitter import colour_jitter
from resnet_jax.data.erasing import random_erasing
from resnet_jax.data.rand_augment import RandAugment, rand_augment


@dataclasses.dataclass(frozen=True)
class Augmentation:
    """How images are changed.

    Attributes:
      padding, flip: see `augment.pad_crop_flip`.
      colour_deviation, colour_basis: see `colour.shift_colours`; 0 and None: off.
      random_erasing: see `erasing.random_erasing`; 0: off.
      rand_augment: see there; None: off.
      colour_jitter: strength, see `colour_jitter.colour_jitter`; 0: off.
    """

    padding: int
    flip: bool
    colour_deviation: float = 0.0
    colour_basis: np.ndarray | None = None
    random_erasing: float = 0.0
    rand_augment: RandAugment | None = None
    colour_jitter: float = 0.0


def augmented(how: Augmentation, statistics: Any, images: Array, key: Array) -> Array:
    """Images as they are trained on, normalised, in the jitted step.

    Args:
      how: what is done to them.
      statistics: `mean` and `std` to normalise by.
      images: uint8, (batch, height, width, channels).
      key: of this step.
    """
    # Keys of their own, so that what is off changes no other's random numbers.
    if how.rand_augment is not None:
        images = rand_augment(jax.random.fold_in(key, 4), images, how.rand_augment)
    if how.colour_jitter:
        # Ahead of the crop, as the shifts below; pixels of 0 to 255, which only scales the result.
        images = colour_jitter(jax.random.fold_in(key, 5), images.astype(jnp.float32), how.colour_jitter)
    images = normalize(images, statistics["mean"], statistics["std"])
    if how.colour_basis is not None:
        # Ahead of the crop: the zeros around an image are no pixels of it.
        colour_key = jax.random.fold_in(key, 1)
        images = shift_colours(colour_key, images, how.colour_basis, how.colour_deviation, statistics["std"])
    images = pad_crop_flip(key, images, how.padding, how.flip)
    if how.random_erasing:
        erasing_key = jax.random.fold_in(key, 2)
        images = random_erasing(erasing_key, images, how.random_erasing, statistics["mean"], statistics["std"])
    return images
