"""Random erasing (Zhong et al. 2020, "Random Erasing Data Augmentation", algorithm 1)."""

import jax
import jax.numpy as jnp
from jax import Array

#: Least and largest share of the image, and least aspect ratio (section 4.2).
AREA, ASPECT = (0.02, 0.4), 0.3

#: Rectangles that are drawn until one fits, as in the authors' code.
ATTEMPTS = 100


def random_rectangles(key: Array, batch: int, height: int, width: int) -> tuple[Array, Array, Array, Array]:
    """Draws a rectangle inside each image: (top, left, heights, widths), int32, (batch,) each.

    Share of the area, aspect ratio and place are uniform; a rectangle that does not fit is drawn again. Where none
    fits, as in images of one pixel, it is 0 x 0.
    """
    area_key, aspect_key, top_key, left_key = jax.random.split(key, 4)
    area = jax.random.uniform(area_key, (batch, ATTEMPTS), minval=AREA[0], maxval=AREA[1]) * height * width
    aspect = jax.random.uniform(aspect_key, (batch, ATTEMPTS), minval=ASPECT, maxval=1 / ASPECT)
    heights = jnp.round(jnp.sqrt(area * aspect)).astype(jnp.int32)
    widths = jnp.round(jnp.sqrt(area / aspect)).astype(jnp.int32)
    fits = (heights < height) & (widths < width)
    first = jnp.argmax(fits, axis=1)[:, None]
    fitting = jnp.any(fits, axis=1)

    def chosen(sides: Array) -> Array:
        return jnp.where(fitting, jnp.take_along_axis(sides, first, axis=1)[:, 0], 0)

    h, w = chosen(heights), chosen(widths)
    top = jax.random.randint(top_key, (batch,), 0, height - h + 1)
    left = jax.random.randint(left_key, (batch,), 0, width - w + 1)
    return top, left, h, w


def inside(top: Array, left: Array, heights: Array, widths: Array, height: int, width: int) -> Array:
    """Returns masks of rectangles, bool, (batch, height, width, 1)."""
    rows, columns = jnp.arange(height)[None, :], jnp.arange(width)[None, :]
    in_rows = (rows >= top[:, None]) & (rows < (top + heights)[:, None])
    in_columns = (columns >= left[:, None]) & (columns < (left + widths)[:, None])
    return (in_rows[:, :, None] & in_columns[:, None, :])[..., None]


def random_erasing(key: Array, images: Array, probability: float, mean: Array, std: Array) -> Array:
    """Fills a rectangle of some images with random pixels: the paper's RE-R.

    Args:
      key: random key.
      images: normalised images (batch, height, width, channels).
      probability: of an image to be changed; the paper's 0.5.
      mean, std: the images' normalisation; the random pixels are uniform in [0, 1] before it.
    """
    batch, height, width, _ = images.shape
    which_key, where_key, pixel_key = jax.random.split(key, 3)
    erased = jax.random.bernoulli(which_key, probability, (batch, 1, 1, 1))
    mask = inside(*random_rectangles(where_key, batch, height, width), height, width)
    pixels = (jax.random.uniform(pixel_key, images.shape) - mean) / std
    return jnp.where(erased & mask, pixels, images)
