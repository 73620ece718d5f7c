"""Views of normalised test images, (batch, height, width, channels): crops, mirror images, other sizes."""

import jax
import jax.numpy as jnp
from jax import Array

from resnet_jax.data.imagenet.test_crops import Shape, crop_corners, shorter_side_shape
from resnet_jax.errors import UserError


def mirrored(images: Array) -> Array:
    """Mirrors images left to right."""
    return images[:, :, ::-1]


def pad(images: Array, pixels: int) -> Array:
    """Pads with zeros, the mean of normalised images, on every side."""
    return jnp.pad(images, ((0, 0), (pixels, pixels), (pixels, pixels), (0, 0)))


def ten_crops(images: Array, crop: Shape) -> tuple[Array, ...]:
    """Crops the four corners and the centre, and mirrors the crops (Krizhevsky et al. 2012, section 4.1).

    Args:
      images: (batch, height, width, channels), height and width at least those of a crop.
      crop: height and width of a crop in pixels.

    Returns:
      Top left, top right, bottom left, bottom right, centre; then the mirror image of each.

    Raises:
      UserError: if the images are smaller.
    """
    height, width = images.shape[1:3]
    if height < crop[0] or width < crop[1]:
        raise UserError(f"images of {height}x{width} pixels have no crop of {crop[0]}x{crop[1]}; resize them")
    corners = crop_corners((height, width), crop)
    crops = [images[:, top : top + crop[0], left : left + crop[1]] for top, left in corners]
    return (*crops, *map(mirrored, crops))


def resize_shorter_side(images: Array, side: int) -> Array:
    """Resizes bilinearly, antialiased where it shrinks, to a shorter side of `side` pixels."""
    batch, height, width, channels = images.shape
    new = shorter_side_shape(height, width, side)
    if new == (height, width):
        return images
    return jax.image.resize(images, (batch, *new, channels), "linear", antialias=True)
