"""What is cut from a whole test image of any size, on the host: crops, or all of it at several sizes.

Images are resized by Pillow's bilinear filter, a triangle as wide as the shrinking: the one that evaluation on
ImageNet commonly takes. Mirror images are made on the devices.
"""

import dataclasses
from collections.abc import Sequence
from fractions import Fraction
from typing import Protocol

import numpy as np
from PIL import Image

#: (height, width) in pixels.
Shape = tuple[int, int]

#: Images that are cut alike: those of one group become arrays of the same shapes.
Group = tuple[int, int]

#: Whole images have their proportions rounded, so that their shorter side is so many parts and their longer side a
#: whole number of these: 1:1, 5:4, 4:3 and 3:2 stay as they are.
PARTS = 12
#: Proportions beyond which an image is not shown whole, but only so much of its middle.
WIDEST = 3
#: The same of an image that crops are cut from: there are none in ImageNet, and one pixel by a thousand must not become
#: 256 by 256,000.
WIDEST_CROPPED = 20


class Cut(Protocol):
    """A way to show images."""

    @property
    def by_size(self) -> bool:
        """Whether images of different sizes are in different groups."""
        ...

    def group(self, height: int, width: int) -> Group:
        """Of an image of that size."""
        ...

    def shapes(self, group: Group) -> tuple[Shape, ...]:
        """Of the views of images of a group."""
        ...

    def views(self, pixels: np.ndarray, group: Group) -> tuple[np.ndarray, ...]:
        """uint8 (height, width, 3), in these shapes, of one uint8 image (height, width, 3)."""
        ...


@dataclasses.dataclass(frozen=True)
class Crops:
    """Crops of `size` pixels from the image at a shorter side of `side` pixels.

    Attributes:
      size, side: in pixels.
      corners: the four corners and the centre, see `places`, instead of the centre alone.
    """

    size: int
    side: int
    corners: bool = False
    by_size = False

    def group(self, height: int, width: int) -> Group:
        """One for all."""
        return (1, 1)

    def shapes(self, group: Group) -> tuple[Shape, ...]:
        """See `Cut`."""
        return ((self.size, self.size),) * (5 if self.corners else 1)

    def views(self, pixels: np.ndarray, group: Group) -> tuple[np.ndarray, ...]:
        """See `Cut`."""
        pixels = middle(pixels, WIDEST_CROPPED)
        height, width = shorter_side_shape(pixels.shape[0], pixels.shape[1], self.side)
        resized = resize(pixels, (height, width))
        corners = places(height, width, self.size)
        return tuple(
            resized[top : top + self.size, left : left + self.size]
            for top, left in (corners if self.corners else corners[-1:])
        )


@dataclasses.dataclass(frozen=True)
class Whole:
    """The whole image at each of several shorter sides.

    Every size of an image is a program to be compiled, and the 50,000 validation images of ImageNet have thousands.
    So proportions are rounded, to one of 49, the same for all shorter sides.

    Attributes:
      sides: in pixels.
    """

    sides: tuple[int, ...]
    by_size = True

    def group(self, height: int, width: int) -> Group:
        """Rounded proportions, height and width in parts of which the shorter side has `PARTS`."""
        longer = min(round(Fraction(PARTS * max(height, width), min(height, width))), WIDEST * PARTS)
        return (PARTS, longer) if height <= width else (longer, PARTS)

    def shapes(self, group: Group) -> tuple[Shape, ...]:
        """See `Cut`."""
        return tuple((side * group[0] // PARTS, side * group[1] // PARTS) for side in self.sides)

    def views(self, pixels: np.ndarray, group: Group) -> tuple[np.ndarray, ...]:
        """See `Cut`."""
        pixels = middle(pixels, WIDEST)
        return tuple(resize(pixels, shape) for shape in self.shapes(group))


def shorter_side_shape(height: int, width: int, side: int) -> Shape:
    """(height, width) with the shorter side `side` and the longer one in proportion, rounded down.

    Down, as in Torch's `Scale`, which the authors' later code and torchvision use.
    """
    if height <= width:
        return side, width * side // height
    return height * side // width, side


def places(height: int, width: int, size: int) -> Sequence[tuple[int, int]]:
    """(top, left) of the crops of `size` pixels in the corners and, last, in the centre.

    Krizhevsky et al. 2012, section 4.1. Where the rest is odd, the smaller half is above and to the left of the centre.
    """
    bottom, right = height - size, width - size
    return (0, 0), (0, right), (bottom, 0), (bottom, right), (bottom // 2, right // 2)


def middle(pixels: np.ndarray, widest: int) -> np.ndarray:
    """An image, or where its longer side is more than `widest` times its shorter one, so much of its middle."""
    height, width = pixels.shape[:2]
    most = widest * min(height, width)
    top, left = max(0, height - most) // 2, max(0, width - most) // 2
    return pixels[top : top + most, left : left + most]


def resize(pixels: np.ndarray, shape: Shape) -> np.ndarray:
    """Bilinear and antialiased, uint8; no change at that size."""
    if pixels.shape[:2] == shape:
        return pixels
    image = Image.fromarray(np.ascontiguousarray(pixels))
    return np.asarray(image.resize(shape[::-1], Image.Resampling.BILINEAR))
