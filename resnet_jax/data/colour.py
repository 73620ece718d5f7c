"""Changes of colour: shifts along principal components, and jitter of brightness, contrast and saturation."""

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from resnet_jax.errors import UserError

#: Eigenvalues and eigenvectors (columns) of the covariance of ImageNet's RGB in [0, 1], as published in
#: github.com/facebookarchive/fb.resnet.torch, datasets/imagenet.lua.
IMAGENET_EIGENVALUES = (0.2175, 0.0188, 0.0045)
IMAGENET_EIGENVECTORS = ((-0.5675, 0.7192, 0.4009), (-0.5808, -0.0045, -0.8140), (-0.5836, -0.6948, 0.4203))

#: Weights of R, G and B in grey (ITU-R 601).
GREY = (0.299, 0.587, 0.114)


def colour_basis(images: np.ndarray | None = None) -> np.ndarray:
    """Returns the matrix that turns three random numbers into a shift of an image's RGB in [0, 1].

    Args:
      images: uint8 training images (n, height, width, 3) to compute the components from; None for ImageNet's published.

    Returns:
      float32, (3, 3): column i is the i-th eigenvector of the covariance of pixels times its eigenvalue.

    Raises:
      UserError: for images that are not RGB.
    """
    if images is None:
        return (np.array(IMAGENET_EIGENVECTORS) * np.array(IMAGENET_EIGENVALUES)).astype(np.float32)
    check_rgb("colour_pca", images.shape[-1])
    # Summed over parts: the float64 pixels of a whole set would take eight times its memory.
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
    """Raises UserError where a field of `config.data` changes colours and the images do not have three channels."""
    if channels != 3:
        raise UserError(f"config.data.{field} is for RGB images, not for {channels} channel(s)")


def shift_colours(key: Array, images: Array, basis: np.ndarray, deviation: float, std: Array) -> Array:
    """Shifts all pixels of each image by [p1 p2 p3] [a1 l1, a2 l2, a3 l3]^T (Krizhevsky et al. 2012, section 4.1).

    Args:
      key: random key; the three numbers a of each image are drawn from N(0, deviation).
      images: normalised images (batch, height, width, 3).
      basis: see `colour_basis`.
      deviation: the paper's 0.1.
      std: what pixels in [0, 1] were divided by.
    """
    alphas = deviation * jax.random.normal(key, (images.shape[0], 3))
    shifts = jnp.einsum("ij,bj->bi", jnp.asarray(basis), alphas, precision=jax.lax.Precision.HIGHEST)
    return images + (shifts / std)[:, None, None, :]


def colour_jitter(key: Array, images: Array, strength: float, sizes: Array | None = None) -> Array:
    """Changes brightness, contrast and saturation of each image by random factors, without clipping.

    After github.com/facebookarchive/fb.resnet.torch, datasets/transforms.lua, `ColorJitter`; its README names Howard
    2013, "Some Improvements on Deep Convolutional Neural Network Based Image Classification".

    Args:
      key: random key; three numbers are drawn for each image.
      images: float RGB (batch, height, width, 3), black at 0, of any scale.
      strength: factors are uniform in [1 - strength, 1 + strength]; 0.4 in fb.resnet.torch, datasets/imagenet.lua.
      sizes: see `jitter_colours`.
    """
    return jitter_colours(images, draw(key, images.shape[0], strength), sizes)


def draw(key: Array, batch: int, strength: float) -> Array:
    """Draws the factors that `jitter_colours` takes, float32, (batch, 3)."""
    return jax.random.uniform(key, (batch, 3), minval=1 - strength, maxval=1 + strength)


def jitter_colours(images: Array, alphas: Array, sizes: Array | None = None) -> Array:
    """Applies three operations to each image, each alpha * image + (1 - alpha) * other.

    `other` is black for brightness, the mean over the image of its grey for contrast, and its grey for saturation
    (fb.resnet.torch, datasets/transforms.lua, `Brightness`, `Contrast`, `Saturation`).

    Args:
      images: float RGB (batch, height, width, 3), black at 0, of any scale.
      alphas: of brightness, contrast and saturation, (batch, 3).
      sizes: heights and widths of images that are padded with black, (batch, 2); None: they are not padded.
    """
    # fb.resnet.torch applies them in a random order. All six orders give the same image: without clipping they are
    # linear, GREY adds up to 1, and contrast and saturation leave the mean grey as it is.
    brightness, contrast, saturation = (alphas[:, i, None, None, None] for i in range(3))
    red, green, blue = (images[..., i, None] for i in range(3))
    grey = GREY[0] * red + GREY[1] * green + GREY[2] * blue
    mean = jnp.mean(grey, axis=(1, 2), keepdims=True)
    if sizes is not None:  # black adds nothing to the sum
        mean *= (grey.shape[1] * grey.shape[2] / jnp.prod(sizes, axis=1))[:, None, None, None]
    return brightness * (contrast * (saturation * images + (1 - saturation) * grey) + (1 - contrast) * mean)
