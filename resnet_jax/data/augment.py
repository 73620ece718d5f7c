"""Normalisation and augmentation inside the jitted step, for every pipeline."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from ml_collections import ConfigDict

from resnet_jax.data.colour import check_rgb, colour_basis, colour_jitter, shift_colours
from resnet_jax.data.erasing import random_erasing
from resnet_jax.data.rand_augment import RandAugment, rand_augment
from resnet_jax.errors import UserError, unknown_name

NORMALIZATIONS = ("per_pixel_mean", "per_channel", "imagenet")

# Of RGB in [0, 1]; Krizhevsky's ImageNet statistics as torchvision rounds them.
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


def normalization(kind: str, images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Computes the mean and standard deviation of pixels in [0, 1] to normalise by.

    Args:
      kind: "per_pixel_mean" subtracts the mean image of the training set, as in the 2015 paper; "per_channel"
        subtracts each channel's mean and divides by its deviation; "imagenet" uses ImageNet's.
      images: uint8 training images, (n, height, width, channels).

    Returns:
      float32 arrays (mean, deviation), shaped (height, width, channels) or (channels,).

    Raises:
      UserError: for an unknown kind.
    """
    if kind == "per_pixel_mean":
        # Divided by 255 only: the batch norm after the first convolution removes any scale.
        mean = images.mean(axis=0, dtype=np.float64) / 255
        return mean.astype(np.float32), np.ones(images.shape[-1], np.float32)
    if kind == "per_channel":
        mean = images.mean(axis=(0, 1, 2), dtype=np.float64) / 255
        std = images.std(axis=(0, 1, 2), dtype=np.float64) / 255
        return mean.astype(np.float32), np.where(std > 0, std, 1).astype(np.float32)  # a constant channel becomes 0
    if kind == "imagenet":
        if images.shape[-1] != len(IMAGENET_MEAN):
            raise UserError(f"normalization 'imagenet' is for RGB images, not for {images.shape[-1]} channel(s)")
        return np.array(IMAGENET_MEAN, np.float32), np.array(IMAGENET_STD, np.float32)
    raise unknown_name("normalization", kind, NORMALIZATIONS)


def normalize(images: Array, mean: Array, std: Array) -> Array:
    """Normalises images of 0 to 255, uint8 or float, (batch, height, width, channels), to float32."""
    return (images.astype(jnp.float32) / 255 - mean) / std


def pad_crop_flip(key: Array, images: Array, padding: int, flip: bool) -> Array:
    """Pads each image with zeros, crops it back at a random place and mirrors half of them (2015, section 4.2).

    Args:
      key: random key; the same key gives the same result on any number of devices.
      images: normalised images (batch, height, width, channels), so that zero is the mean.
      padding: pixels on each side; 0 for no crop.
      flip: whether to mirror, each image with probability 1/2.
    """
    batch = images.shape[0]
    crop_key, flip_key = jax.random.split(key)
    if padding:
        corners = jax.random.randint(crop_key, (batch, 2), 0, 2 * padding + 1)
        images = _cropped(_cropped(images, corners[:, 0], padding, axis=1), corners[:, 1], padding, axis=2)
    if flip:
        mirrored = jax.random.bernoulli(flip_key, 0.5, (batch, 1, 1, 1))
        images = jnp.where(mirrored, images[:, :, ::-1], images)
    return images


def _cropped(images: Array, starts: Array, padding: int, axis: int) -> Array:
    """Pads one axis with zeros and keeps what is from each image's start on.

    A TPU takes slices that start at computed places one image at a time, which was a third of ResNet-20's step
    (docs/scaling.md). It passes over all of them once to choose between the few places that there are.
    """
    padded = jnp.pad(images, [(padding, padding) if i == axis else (0, 0) for i in range(images.ndim)])
    places = [jax.lax.slice_in_dim(padded, i, i + images.shape[axis], axis=axis) for i in range(2 * padding + 1)]
    found = places[0]
    for i, place in enumerate(places[1:], start=1):
        found = jnp.where(starts[:, None, None, None] == i, place, found)
    return found


@dataclasses.dataclass(frozen=True)
class Augmentation:
    """Says how training images are changed.

    Attributes:
      padding, flip: see `pad_crop_flip`.
      colour_deviation, colour_basis: see `colour.shift_colours`; 0 and None: off.
      random_erasing: probability, see `erasing.random_erasing`; 0: off.
      rand_augment: random operations, see `RandAugment`; None: off.
      colour_jitter: strength, see `colour.colour_jitter`; 0: off.
    """

    padding: int
    flip: bool
    colour_deviation: float = 0.0
    colour_basis: np.ndarray | None = None
    random_erasing: float = 0.0
    rand_augment: RandAugment | None = None
    colour_jitter: float = 0.0

    @classmethod
    def of_config(cls, data: ConfigDict, images: np.ndarray | None = None) -> "Augmentation":
        """Reads `config.data`.

        Args:
          data: the fields.
          images: training images, whose colours shift along their own principal components. Without them, and with
            ImageNet's normalisation, those published for ImageNet are used.

        Raises:
          UserError: for a change of colours of images that are not RGB.
        """
        if data.colour_jitter:
            check_rgb("colour_jitter", 3 if images is None else images.shape[-1])
        basis = None
        if data.colour_pca:
            basis = colour_basis(None if data.normalization == "imagenet" else images)
        return cls(data.padding, data.flip, data.colour_pca, basis, data.random_erasing,
                   RandAugment.of_config(data.rand_augment), data.colour_jitter)  # fmt: skip


def augmented(how: Augmentation, statistics: Any, images: Array, key: Array, sizes: Array | None = None) -> Array:
    """Augments and normalises a training batch, in the jitted step.

    Args:
      how: what is done.
      statistics: `mean` and `std` to normalise by.
      images: uint8, (batch, height, width, channels).
      key: of this step.
      sizes: heights and widths of images that are padded with black, (batch, 2); None: they are not padded.
    """
    # Each has its own key, so that switching one off changes no other's random numbers.
    if how.rand_augment is not None:
        images = rand_augment(jax.random.fold_in(key, 4), images, how.rand_augment)
    if how.colour_jitter:
        # Ahead of the crop, as the shifts below: the zeros around an image are not part of it.
        images = colour_jitter(jax.random.fold_in(key, 5), images.astype(jnp.float32), how.colour_jitter, sizes)
    images = normalize(images, statistics["mean"], statistics["std"])
    if how.colour_basis is not None:
        colour_key = jax.random.fold_in(key, 1)
        images = shift_colours(colour_key, images, how.colour_basis, how.colour_deviation, statistics["std"])
    images = pad_crop_flip(key, images, how.padding, how.flip)
    if how.random_erasing:
        erasing_key = jax.random.fold_in(key, 2)
        images = random_erasing(erasing_key, images, how.random_erasing, statistics["mean"], statistics["std"])
    return images
