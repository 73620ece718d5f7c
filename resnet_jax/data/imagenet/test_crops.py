"""Views of whole test images of any size, made on the host: crops, or the whole image at several sizes.

Images are resized by Pillow's antialiased bilinear filter, which is common for evaluation on ImageNet. Mirror images
are made on the devices.
"""

import dataclasses
from collections.abc import Sequence
from fractions import Fraction
from typing import Protocol

import numpy as np
from PIL import Image

#: (height, width) in pixels.
Shape = tuple[int, int]

#: Rounded proportions; the views of images of one group have the same shapes.
Group = tuple[int, int]

#: The proportions of whole images are rounded: the shorter side has so many parts, and the longer side a whole number
#: of them. 1:1, 5:4, 4:3 and 3:2 stay as they are.
PARTS = 12
#: Of an image with longer proportions, only its middle is shown.
WIDEST = 3
#: The same for crops: ImageNet has no such image, but 1 by 1,000 pixels must not become 256 by 256,000.
WIDEST_CROPPED = 20


class ImageViews(Protocol):
    """Makes the views of an image that a net is shown."""

    @property
    def by_size(self) -> bool:
        """Whether images of different sizes belong to different groups."""
        ...

    def group(self, height: int, width: int) -> Group:
        """Returns the group of an image of that size."""
        ...

    def shapes(self, group: Group) -> tuple[Shape, ...]:
        """Returns the shapes of the views of a group's images."""
        ...

    def views(self, pixels: np.ndarray, group: Group) -> tuple[np.ndarray, ...]:
        """Returns the views of an image, uint8 (height, width, 3)."""
        ...


@dataclasses.dataclass(frozen=True)
class Crops:
    """Cuts crops of `size` pixels from the image at a shorter side of `side` pixels.

    Attributes:
      size, side: in pixels.
      corners: whether the four corners are cut besides the centre.
    """

    size: int
    side: int
    corners: bool = False
    by_size = False

    def group(self, height: int, width: int) -> Group:
        """Returns the one group of all images."""
        return (1, 1)

    def shapes(self, group: Group) -> tuple[Shape, ...]:
        return ((self.size, self.size),) * (5 if self.corners else 1)

    def views(self, pixels: np.ndarray, group: Group) -> tuple[np.ndarray, ...]:
        pixels = limit_aspect(pixels, WIDEST_CROPPED)
        height, width = shorter_side_shape(pixels.shape[0], pixels.shape[1], self.side)
        resized = resize(pixels, (height, width))
        corners = crop_corners((height, width), (self.size, self.size))
        return tuple(
            resized[top : top + self.size, left : left + self.size]
            for top, left in (corners if self.corners else corners[-1:])
        )


@dataclasses.dataclass(frozen=True)
class WholeImage:
    """Shows the whole image at each of several shorter sides.

    Every size of an image compiles a program, and the 50,000 validation images of ImageNet have thousands of sizes. So
    proportions are rounded to one of 49.

    Attributes:
      sides: in pixels.
    """

    sides: tuple[int, ...]
    by_size = True

    def group(self, height: int, width: int) -> Group:
        """Returns the proportions as (height, width) in parts, of which the shorter side has `PARTS`."""
        longer = min(round(Fraction(PARTS * max(height, width), min(height, width))), WIDEST * PARTS)
        return (PARTS, longer) if height <= width else (longer, PARTS)

    def shapes(self, group: Group) -> tuple[Shape, ...]:
        return tuple((side * group[0] // PARTS, side * group[1] // PARTS) for side in self.sides)

    def views(self, pixels: np.ndarray, group: Group) -> tuple[np.ndarray, ...]:
        pixels = limit_aspect(pixels, WIDEST)
        return tuple(resize(pixels, shape) for shape in self.shapes(group))


def shorter_side_shape(height: int, width: int, side: int) -> Shape:
    """Returns (height, width) with the shorter side `side`, and the longer side in proportion.

    It is rounded down, as in Torch's `Scale`, which the authors' later code and torchvision use.
    """
    if height <= width:
        return side, width * side // height
    return height * side // width, side


def crop_corners(image: Shape, crop: Shape) -> Sequence[tuple[int, int]]:
    """Returns (top, left) of the crops in the four corners of an image and, last, in its centre.

    See Krizhevsky et al. 2012, section 4.1. Of an odd margin, the smaller half is above and to the left of the centre.
    """
    bottom, right = image[0] - crop[0], image[1] - crop[1]
    return (0, 0), (0, right), (bottom, 0), (bottom, right), (bottom // 2, right // 2)


def limit_aspect(pixels: np.ndarray, widest: int) -> np.ndarray:
    """Returns an image, or the middle of it where one side is more than `widest` times the other."""
    height, width = pixels.shape[:2]
    most = widest * min(height, width)
    top, left = max(0, height - most) // 2, max(0, width - most) // 2
    return pixels[top : top + most, left : left + most]


def resize(pixels: np.ndarray, shape: Shape) -> np.ndarray:
    """Resizes a uint8 image bilinearly, antialiased; an image of that size is returned unchanged."""
    if pixels.shape[:2] == shape:
        return pixels
    image = Image.fromarray(np.ascontiguousarray(pixels))
    return np.asarray(image.resize(shape[::-1], Image.Resampling.BILINEAR))
