"""Photometric distortion: brightness, contrast and saturation of each image by random factors.

After github.com/facebookarchive/fb.resnet.torch, datasets/transforms.lua, `ColorJitter`; its README names Howard 2013,
"Some Improvements on Deep Convolutional Neural Network Based Image Classification", as the source.
"""

import jax
import jax.numpy as jnp
from jax import Array

#: Weights of R, G and B in grey (ITU-R 601).
GREY = (0.299, 0.587, 0.114)


def colour_jitter(key: Array, images: Array, strength: float) -> Array:
    """Changes brightness, contrast and saturation of each image by factors of its own.

    Args:
      key: random key; three numbers are drawn for each image.
      images: float RGB (batch, height, width, 3), black at 0, of any scale.
      strength: factors are uniform in [1 - strength, 1 + strength]; 0.4 in fb.resnet.torch, datasets/imagenet.lua.

    Returns:
      Images of the same scale; values are not clipped, as there.
    """
    return jitter_colours(images, draw(key, images.shape[0], strength))


def draw(key: Array, batch: int, strength: float) -> Array:
    """Draws the factors that `jitter_colours` takes, float32, (batch, 3)."""
    return jax.random.uniform(key, (batch, 3), minval=1 - strength, maxval=1 + strength)


def jitter_colours(images: Array, alphas: Array) -> Array:
    """Applies three operations to each image, each alpha * image + (1 - alpha) * other, without clipping.

    `other` is black for brightness, the mean over the image of its grey for contrast, and its grey for saturation
    (fb.resnet.torch, datasets/transforms.lua, `Brightness`, `Contrast`, `Saturation`).

    Args:
      images: float RGB (batch, height, width, 3), black at 0, of any scale.
      alphas: of brightness, contrast and saturation, (batch, 3).
    """
    # There the operations come in a random order. None is drawn here, because all six give the same image: without
    # clipping each operation is linear, GREY adds up to 1, so that grey and its mean are grey already, and contrast
    # and saturation both leave the mean as it is. What comes out is a sum of three, and pixels are gone through once.
    brightness, contrast, saturation = (alphas[:, i, None, None, None] for i in range(3))
    red, green, blue = (images[..., i, None] for i in range(3))
    grey = GREY[0] * red + GREY[1] * green + GREY[2] * blue
    mean = jnp.mean(grey, axis=(1, 2), keepdims=True)
    return brightness * (contrast * (saturation * images + (1 - saturation) * grey) + (1 - contrast) * mean)
