"""Normalisation and augmentation, inside the jitted step: pad, crop, flip (He et al. 2015, section 4.2)."""

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from resnet_jax.errors import UserError, unknown_name

NORMALIZATIONS = ("per_pixel_mean", "per_channel", "imagenet")

# Of RGB in [0, 1]; Krizhevsky's ImageNet statistics as torchvision rounds them.
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


def normalization(kind: str, images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean and deviation of pixels in [0, 1] to normalise by.

    Args:
      kind: "per_pixel_mean" subtracts the mean image of the training set, as in the 2015 paper; "per_channel"
        subtracts each channel's mean and divides by its deviation; "imagenet" does so with ImageNet's.
      images: uint8 training images, (n, height, width, channels).

    Returns:
      float32 arrays (mean, deviation), shaped (height, width, channels) or (channels,).

    Raises:
      UserError: for an unknown kind.
    """
    if kind == "per_pixel_mean":
        # Divided by 255 only: the batch norm behind the first convolution takes any scale out again.
        mean = images.mean(axis=0, dtype=np.float64) / 255
        return mean.astype(np.float32), np.ones(images.shape[-1], np.float32)
    if kind == "per_channel":
        mean = images.mean(axis=(0, 1, 2), dtype=np.float64) / 255
        std = images.std(axis=(0, 1, 2), dtype=np.float64) / 255
        # A channel that never varies, as in a set with a constant one, stays at zero.
        return mean.astype(np.float32), np.where(std > 0, std, 1).astype(np.float32)
    if kind == "imagenet":
        if images.shape[-1] != len(IMAGENET_MEAN):
            raise UserError(f"normalization 'imagenet' is for RGB images, not for {images.shape[-1]} channel(s)")
        return np.array(IMAGENET_MEAN, np.float32), np.array(IMAGENET_STD, np.float32)
    raise unknown_name("normalization", kind, NORMALIZATIONS)


def normalize(images: Array, mean: Array, std: Array) -> Array:
    """Images of 0 to 255, uint8 or float, (batch, height, width, channels), to float32, normalised."""
    return (images.astype(jnp.float32) / 255 - mean) / std


def pad_crop_flip(key: Array, images: Array, padding: int, flip: bool) -> Array:
    """Pads with zeros, crops back at a random place, mirrors half of the images; each image by itself.

    Args:
      key: random key; the same key gives the same result on any number of devices.
      images: normalised images (batch, height, width, channels), so that zero is the mean.
      padding: pixels on each side; 0 for no crop.
      flip: whether to mirror, each image with probability 1/2.
    """
    batch, height, width, channels = images.shape
    crop_key, flip_key = jax.random.split(key)
    if padding:
        padded = jnp.pad(images, ((0, 0), (padding, padding), (padding, padding), (0, 0)))
        corners = jax.random.randint(crop_key, (batch, 2), 0, 2 * padding + 1)

        def crop(image: Array, corner: Array) -> Array:
            return jax.lax.dynamic_slice(image, (corner[0], corner[1], 0), (height, width, channels))

        images = jax.vmap(crop)(padded, corners)
    if flip:
        mirrored = jax.random.bernoulli(flip_key, 0.5, (batch, 1, 1, 1))
        images = jnp.where(mirrored, images[:, :, ::-1], images)
    return images
