"""Which sizes of an image a region is seen at (He et al. 2015, appendix B; Ren et al. 2015, "NoC", section 4)."""

import jax.numpy as jnp
from jax import Array

from resnet_jax.models.detection.boxes import area


def nearest_pair(boxes: Array, scales: Array, side: float) -> Array:
    """Returns at which two sizes of an image each box has the most nearly side x side pixels, int32 (n,).

    The number is that of the smaller size; the other is the next one. The two nearest sizes are always neighbours, as
    a box only grows with the image.

    Args:
      boxes: (n, 4).
      scales: (sizes, 2), factors on the boxes' heights and widths at each size of the image, the smallest first.
      side: of the images that the net was trained on as a classifier, in pixels (He et al. 2014, "SPP-net", 4.3).
    """
    off = jnp.abs(area(boxes) * scales.prod(axis=1)[:, None] - side**2)
    return jnp.argmin(off[:-1] + off[1:], axis=0).astype(jnp.int32)
