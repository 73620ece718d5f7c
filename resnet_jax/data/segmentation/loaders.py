"""Loads images and masks by threads: crops at a random size to train on, whole images padded to evaluate on."""

import threading
from typing import Any

import cv2
import numpy as np

from resnet_jax.data.buckets import PaddedBatch, Shape
from resnet_jax.data.image_files import DecodeError, image_size
from resnet_jax.data.imagenet.loaders import GRAY, Loader, PendingBatch, TrainLoader, Unreadable
from resnet_jax.data.imagenet.source import RecordError
from resnet_jax.data.segmentation.masks import IGNORE
from resnet_jax.data.segmentation.sources import PairSource

#: Bytes of decoded training images and masks that are kept, so that small sets are decoded once.
KEPT_BYTES = 2**28


def crop_pair(pixels: np.ndarray, labels: np.ndarray, draws: np.ndarray, size: int, scale: tuple[float, float],
              scale_from: int, flip: bool, fill: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:  # fmt: skip
    """Resizes an image and its mask by one random factor, crops them at one random place and mirrors half of them.

    One map from places of the crop to places of the image serves both: bilinear for the image, the nearest pixel for
    the mask. What is beyond the image, at the bottom and on the right, has `fill` and `IGNORE`.

    Args:
      pixels: uint8 (height, width, 3).
      labels: uint8 (height, width).
      draws: four numbers in [0, 1): factor, top, left, mirror image.
      size: side of the crop in pixels.
      scale: least and largest factor.
      scale_from: shorter side in pixels that the factor is of; 0: the image's own.
      flip: whether to mirror, with probability 1/2.
      fill: RGB beyond the image.

    Returns:
      uint8 (size, size, 3) and uint8 (size, size).
    """
    height, width = labels.shape
    factor = scale[0] + draws[0] * (scale[1] - scale[0])
    if scale_from:
        factor *= scale_from / min(height, width)
    # Whole pixels, as if the image were resized first; so the two axes' factors differ a little.
    resized = [max(1, round(side * factor)) for side in (height, width)]
    top, left = (int(draw * (max(0, side - size) + 1)) for draw, side in zip(draws[1:3], resized, strict=True))
    down, across = (side / of for side, of in zip((height, width), resized, strict=True))
    # OpenCV has centres of pixels at whole numbers: row r of the crop is row (r + top + 0.5) * down - 0.5 of the image.
    step, start = across, (left + 0.5) * across - 0.5
    if flip and draws[3] < 0.5:
        step, start = -step, start + (size - 1) * step
    back = np.array([[step, 0, start], [0, down, (top + 0.5) * down - 0.5]])
    common: dict[str, Any] = {"dsize": (size, size), "borderMode": cv2.BORDER_CONSTANT}
    image = cv2.warpAffine(pixels, back, flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP, borderValue=fill, **common)
    mask = cv2.warpAffine(labels, back, flags=cv2.INTER_NEAREST | cv2.WARP_INVERSE_MAP, borderValue=IGNORE, **common)
    return image, mask


class PairTrainLoader(TrainLoader):
    """Loads training batches by number: uint8 images (rows, size, size, 3) and labels (rows, size, size)."""

    def __init__(self, source: PairSource, *, seed: int, batch_size: int, rows: tuple[int, int], size: int,
                 scale: tuple[float, float], scale_from: int, flip: bool, fill: tuple[int, ...], workers: int = 0,
                 repeats: int = 1) -> None:  # fmt: skip
        """Starts the threads; see `TrainLoader` and `crop_pair`."""
        super().__init__(source, seed=seed, batch_size=batch_size, rows=rows, size=size, crop="scale", sides=(0, 0),
                         workers=workers, repeats=repeats)  # fmt: skip
        self.pairs = source
        self._how: dict[str, Any] = {"scale": scale, "scale_from": scale_from, "flip": flip, "fill": fill}
        self._kept: dict[int, tuple[np.ndarray, np.ndarray]] = {}
        self._room, self._lock = KEPT_BYTES, threading.Lock()

    def empty(self, rows: int, size: int) -> tuple[np.ndarray, ...]:
        return np.empty((rows, size, size, 3), np.uint8), np.empty((rows, size, size), np.uint8)

    def load(self, index: int, draws: np.ndarray, size: int) -> tuple[Any, ...]:
        return crop_pair(*self._pair(index), draws[:4], size, **self._how)

    def _pair(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        if index in self._kept:
            return self._kept[index]
        pair = self.pairs.pair(index)
        with self._lock:
            room = self._room - sum(array.nbytes for array in pair)
            if room >= 0 and index not in self._kept:
                self._kept[index], self._room = pair, room
        return pair


class PairTestLoader(Loader):
    """Loads whole images and masks, padded.

    An image that cannot be read is shown grey, so that its pixels count; one without a mask has none that do.
    Both are in `grey`.
    """

    def __init__(self, source: PairSource, unreadable: Unreadable, workers: int = 0) -> None:
        """Starts the threads; 0: one for each core."""
        super().__init__(source, unreadable, workers)
        self.pairs = source

    def sizes(self) -> list[Shape]:
        """Returns the size of each image by its header, or by its mask where that cannot be read."""

        def size(index: int) -> Shape:
            for read in (lambda: image_size(self.pairs.load(index).data), lambda: self.pairs.labels(index).shape):
                try:
                    height, width = read()
                    return height, width
                except (RecordError, DecodeError):  # reported when it is to be shown
                    continue
            return 1, 1

        return list(self._pool.map(size, range(len(self.pairs))))

    def begin(self, batch: PaddedBatch, rows: slice) -> PendingBatch[dict[str, np.ndarray]]:
        """Begins to decode some rows of a batch.

        Returns:
          images: uint8 (n, height, width, 3).
          labels: uint8 (n, height, width), `IGNORE` beyond the image.
          sizes: int32 (n, 2), the image's own height and width.
        """
        indices = batch.indices[rows]
        arrays: dict[str, np.ndarray] = {
            "images": np.zeros((len(indices), *batch.shape, 3), np.uint8),
            "labels": np.full((len(indices), *batch.shape), IGNORE, np.uint8),
            "sizes": np.ones((len(indices), 2), np.int32),
        }

        def fill(row: int) -> None:
            index = int(indices[row])
            try:
                pixels, labels = self.pairs.pair(index)
                self.grey.discard(index)
            except (RecordError, DecodeError) as error:
                self.grey.add(index)
                self.unreadable.add("test", self.pairs.name(index), error)
                try:
                    labels = self.pairs.labels(index)
                except RecordError:
                    return
                if any(side > most for side, most in zip(labels.shape, batch.shape, strict=True)):
                    return
                pixels = np.full((*labels.shape, 3), GRAY, np.uint8)
            height, width = arrays["sizes"][row] = labels.shape
            arrays["images"][row, :height, :width] = pixels
            arrays["labels"][row, :height, :width] = labels

        return self._begin_rows(arrays, len(indices), fill)
