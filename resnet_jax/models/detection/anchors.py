"""Anchors: boxes of several sizes and shapes at every position of a feature map (Ren et al. 2015, section 3.1.1)."""

from collections.abc import Sequence

import numpy as np


def anchor_shapes(sizes: Sequence[float], ratios: Sequence[float]) -> np.ndarray:
    """Returns (width, height) of each anchor, (len(ratios) * len(sizes), 2): all sizes of the first ratio first.

    Args:
      sizes: square roots of the areas, in pixels.
      ratios: of height to width.
    """
    roots = np.sqrt(np.asarray(ratios, np.float64))[:, None]
    widths, heights = np.asarray(sizes) / roots, np.asarray(sizes) * roots
    return np.stack([widths.ravel(), heights.ravel()], axis=-1)


#: Ways to lay anchors over an image; see `grid_anchors`.
GRIDS = ("caffe", "torchvision")


def grid_anchors(height: int, width: int, strides: int | tuple[int, int], shapes: np.ndarray, grid: str = "caffe"
                 ) -> np.ndarray:  # fmt: skip
    """Returns the anchors of a feature map, float32 (height * width * len(shapes), 4): row by row.

    Args:
      height, width: of the feature map, in positions.
      strides: pixels from one position to the next; or downwards and to the right.
      shapes: of `anchor_shapes`.
      grid: "caffe" has them in the middle of a position's square, as Caffe's code; "torchvision" at its upper left
        corner, with sides that are whole and even.
    """
    offset = 0.5 if grid == "caffe" else 0.0
    half = shapes / 2 if grid == "caffe" else np.round(shapes / 2)
    ys, xs = np.meshgrid(np.arange(height), np.arange(width), indexing="ij")
    centres = (np.stack([xs, ys], axis=-1).reshape(-1, 1, 2) + offset) * np.broadcast_to(strides, 2)[::-1]
    return np.concatenate([centres - half, centres + half], axis=-1).reshape(-1, 4).astype(np.float32)
