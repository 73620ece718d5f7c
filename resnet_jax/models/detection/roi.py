"""Features of regions: RoIAlign as two contractions, and exact max-pooling by tables of range maxima."""

import jax
import jax.numpy as jnp
from jax import Array


def roi_align(features: Array, boxes: Array, size: int, scale: float, *, samples: int = 2,
              aligned: bool = True, precision: str | None = None) -> Array:  # fmt: skip
    """Averages bilinear samples in the size x size bins of each box (He et al. 2017, "Mask R-CNN", section 3).

    Interpolation is linear in each axis by itself, so that a bin is a weighted sum over rows and then over columns:
    two matrix products, without the gathers that are slow on a CPU and run out of memory on a TPU.

    Args:
      features: (height, width, channels).
      boxes: (n, 4), in pixels of the image.
      size: bins on a side.
      scale: positions of the features a pixel, one over the stride.
      samples: samples of a bin on a side.
      aligned: whether the centre of a position lies at its half, as it does; without, as in the first
        implementations, at its whole number, and a box is one position wide at least.
      precision: of the products, on accelerators; see `layers.precision_of`.

    Returns:
      (n, size, size, channels). No gradient goes to the boxes.
    """
    boxes = jax.lax.stop_gradient(boxes) * scale - (0.5 if aligned else 0.0)
    height, width, _ = features.shape
    rows = _bin_weights(boxes[:, 1], boxes[:, 3], height, size, samples, aligned).astype(features.dtype)
    columns = _bin_weights(boxes[:, 0], boxes[:, 2], width, size, samples, aligned).astype(features.dtype)
    by_rows = jnp.einsum("nph,hwc->npwc", rows, features, precision=precision)
    return jnp.einsum("nqw,npwc->npqc", columns, by_rows, precision=precision)


def sample_points(starts: Array, ends: Array, length: int | Array, size: int, samples: int, aligned: bool
                  ) -> tuple[Array, Array]:  # fmt: skip
    """Returns where the samples of one axis lie, (n, size * samples), and which are not too far outside, bool.

    Args:
      starts, ends: of the boxes, (n,), in positions.
      length: positions of the axis, one number or (n, 1).
      size, samples, aligned: see `roi_align`.
    """
    extents = ends - starts if aligned else jnp.maximum(ends - starts, 1)
    places = (jnp.arange(size * samples) + 0.5) / samples
    points = starts[:, None] + places * (extents / size)[:, None]
    return jnp.clip(points, 0, length - 1), (points >= -1) & (points <= length)


def _bin_weights(starts: Array, ends: Array, length: int, size: int, samples: int, aligned: bool) -> Array:
    """Returns the weight of each position in each bin of one axis, (n, size, length)."""
    points, inside = sample_points(starts, ends, length, size, samples, aligned)
    weights = jnp.maximum(1 - jnp.abs(points[..., None] - jnp.arange(length)), 0) * inside[..., None]
    return weights.reshape(len(starts), size, samples, length).mean(axis=2)


def roi_max_pool(features: Array, boxes: Array, size: int, scale: float) -> Array:
    """Takes the maximum of each of the size x size bins of each box, as Caffe's layer (Girshick 2015, "Fast R-CNN").

    Boxes are rounded to whole positions. Bins overlap where their borders fall inside a position; a bin outside the
    features is 0. A maximum over a range is that over two ranges whose lengths are the largest power of two inside it:
    tables of these for both axes, four entries of them for a bin.

    Args:
      features, size, scale: see `roi_align`.
      boxes: (n, 4), in pixels, inside the image.

    Returns:
      (n, size, size, channels).
    """
    height, width, channels = features.shape
    boxes = jax.lax.stop_gradient(boxes)
    row_starts, row_ends = _bins(boxes[:, 1], boxes[:, 3], height, size, scale)
    column_starts, column_ends = _bins(boxes[:, 0], boxes[:, 2], width, size, scale)
    row_levels, column_levels = _levels(height, size), _levels(width, size)
    by_rows = _range_maxima(features, 0, row_levels)
    tables = jnp.stack([jnp.stack(_range_maxima(table, 1, column_levels)) for table in by_rows])
    flat = tables.reshape(-1, channels)

    level_y, first_y, last_y = _two_ranges(row_starts, row_ends, row_levels)
    level_x, first_x, last_x = _two_ranges(column_starts, column_ends, column_levels)
    level = level_y[:, :, None] * column_levels + level_x[:, None, :]

    def entries(y: Array, x: Array) -> Array:
        return flat[(level * height + y[:, :, None]) * width + x[:, None, :]]

    found = jnp.maximum(
        jnp.maximum(entries(first_y, first_x), entries(first_y, last_x)),
        jnp.maximum(entries(last_y, first_x), entries(last_y, last_x)),
    )
    empty = (row_ends <= row_starts)[:, :, None] | (column_ends <= column_starts)[:, None, :]
    return jnp.where(empty[..., None], 0, found)


def _bins(starts: Array, ends: Array, length: int, size: int, scale: float) -> tuple[Array, Array]:
    """Returns first and end of each bin of one axis, int32 (n, size), within the features."""
    first = jnp.floor(starts * scale + 0.5).astype(jnp.int32)
    last = jnp.floor((ends - 1) * scale + 0.5).astype(jnp.int32)  # Caffe's boxes count both ends
    extents = jnp.maximum(last - first + 1, 1)[:, None]
    # In whole numbers: a quotient that should be whole must not be rounded up for a rounding error.
    bins = jnp.arange(size)
    begin = bins * extents // size + first[:, None]
    end = ((bins + 1) * extents + size - 1) // size + first[:, None]
    return jnp.clip(begin, 0, length), jnp.clip(end, 0, length)


def _levels(length: int, size: int) -> int:
    """Returns how many powers of two the tables need: up to the longest bin inside the features."""
    return min(length, -(-(length + 1) // size) + 1).bit_length()


def _range_maxima(x: Array, axis: int, levels: int) -> list[Array]:
    """Returns tables, the k-th of which has at i the maximum of x[i : i + 2**k] along the axis."""
    tables = [x]
    for level in range(levels - 1):
        ahead = jax.lax.slice_in_dim(tables[-1], min(2**level, x.shape[axis]), x.shape[axis], axis=axis)
        padding = [(0, x.shape[i] - ahead.shape[i]) for i in range(x.ndim)]
        tables.append(jnp.maximum(tables[-1], jnp.pad(ahead, padding, constant_values=-jnp.inf)))
    return tables


def _two_ranges(starts: Array, ends: Array, levels: int) -> tuple[Array, Array, Array]:
    """Returns the level of the tables that a range needs, and where its two entries begin."""
    lengths = jnp.maximum(ends - starts, 1)
    level = jnp.sum(lengths[..., None] >= 2 ** jnp.arange(1, levels), axis=-1)
    last = jnp.maximum(ends - 2**level, 0)
    return level, jnp.minimum(starts, last), last
