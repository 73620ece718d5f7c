"""Colours along the principal components of the training set's (Krizhevsky et al. 2012, section 4.1)."""

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from resnet_jax.errors import UserError

#: Eigenvalues and eigenvectors (columns) of the covariance of ImageNet's RGB in [0, 1], as published in
#: github.com/facebookarchive/fb.resnet.torch, datasets/imagenet.lua.
IMAGENET_EIGENVALUES = (0.2175, 0.0188, 0.0045)
IMAGENET_EIGENVECTORS = ((-0.5675, 0.7192, 0.4009), (-0.5808, -0.0045, -0.8140), (-0.5836, -0.6948, 0.4203))


def colour_basis(images: np.ndarray | None = None) -> np.ndarray:
    """What an image's three random numbers are multiplied by to give a shift of its RGB in [0, 1].

    Args:
      images: uint8 training images (n, height, width, 3) to take the components from; None for ImageNet's published.

    Returns:
      float32, (3, 3): column i is the i-th eigenvector of the covariance of pixels times its eigenvalue.

    Raises:
      UserError: for images that are not RGB.
    """
    if images is None:
        return (np.array(IMAGENET_EIGENVECTORS) * np.array(IMAGENET_EIGENVALUES)).astype(np.float32)
    check_rgb("colour_pca", images.shape[-1])
    # From sums over parts: float64 pixels of a whole set would take eight times the set's memory.
    count, total, products = 0, np.zeros(3), np.zeros((3, 3))
    for part in np.array_split(images, max(1, len(images) // 1000)):
        pixels = part.reshape(-1, 3) / 255
        count += len(pixels)
        total += pixels.sum(axis=0)
        products += pixels.T @ pixels
    mean = total / count
    values, vectors = np.linalg.eigh(products / count - np.outer(mean, mean))
    return (vectors * values).astype(np.float32)


def check_rgb(field: str, channels: int) -> None:
    """Refuses images without colours.

    Args:
      field: of `config.data`, which asks for a change of colours.
      channels: of the images.

    Raises:
      UserError: unless there are three.
    """
    if channels != 3:
        raise UserError(f"config.data.{field} is for RGB images, not for {channels} channel(s)")


def shift_colours(key: Array, images: Array, basis: np.ndarray, deviation: float, std: Array) -> Array:
    """Adds to each image one shift of all its pixels: [p1 p2 p3] [a1 l1, a2 l2, a3 l3]^T, a from N(0, deviation).

    Args:
      key: random key; three numbers are drawn for each image.
      images: normalised images (batch, height, width, 3).
      basis: see `colour_basis`.
      deviation: the paper's 0.1.
      std: what pixels in [0, 1] were divided by.
    """
    alphas = deviation * jax.random.normal(key, (images.shape[0], 3))
    shifts = jnp.einsum("ij,bj->bi", jnp.asarray(basis), alphas, precision=jax.lax.Precision.HIGHEST)
    return images + (shifts / std)[:, None, None, :]
