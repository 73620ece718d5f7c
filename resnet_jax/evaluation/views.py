"""Views of test images: crops, mirror images, other sizes; arrays are (batch, height, width, channels).

Images are normalised first. A resize is linear: it gives the normalised resized image, a mean image resized likewise.
"""

import jax
import jax.numpy as jnp
from jax import Array

from resnet_jax.data.imagenet.test_crops import places, shorter_side_shape
from resnet_jax.errors import UserError


def mirrored(images: Array) -> Array:
    """Left and right exchanged."""
    return images[:, :, ::-1]


def pad(images: Array, pixels: int) -> Array:
    """Zeros, the mean of normalised images, on every side."""
    return jnp.pad(images, ((0, 0), (pixels, pixels), (pixels, pixels), (0, 0)))


def ten_crops(images: Array, size: int) -> tuple[Array, ...]:
    """The four corners and the centre, and their mirror images (Krizhevsky et al. 2012, section 4.1).

    Args:
      images: (batch, height, width, channels), height and width at least `size`.
      size: side of a crop in pixels.

    Returns:
      Top left, top right, bottom left, bottom right, centre; then the mirror image of each: (batch, size, size,
      channels) each. Mirror images of the crops are the crops of the mirror image.

    Raises:
      UserError: if the images are smaller.
    """
    _check_size(images, size)
    corners = places(images.shape[1], images.shape[2], size)
    crops = [images[:, top : top + size, left : left + size] for top, left in corners]
    return (*crops, *(mirrored(crop) for crop in crops))


def resize_shorter_side(images: Array, side: int) -> Array:
    """Bilinear to a shorter side of `side` pixels; antialiased where it shrinks. No change at that size."""
    batch, height, width, channels = images.shape
    new = shorter_side_shape(height, width, side)
    if new == (height, width):
        return images
    return jax.image.resize(images, (batch, *new, channels), "linear", antialias=True)


def _check_size(images: Array, size: int) -> None:
    height, width = images.shape[1:3]
    if min(height, width) < size:
        raise UserError(f"images of {height}x{width} pixels have no crop of {size}; resize them to {size} or more")
