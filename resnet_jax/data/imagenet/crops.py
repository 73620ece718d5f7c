"""Training crops: a pure function of (seed, batch number, row in the batch) and the image's size.

Boxes are (top, left, height, width) in pixels of the whole image; they are cut out and resized in one step.
"""

import math

import numpy as np

#: The 2015 paper's scale augmentation, the Inception crop, or the centre.
CROPS = ("scale", "aspect", "center")

#: Attempts of the Inception crop before it takes the centre.
ATTEMPTS = 10
#: Random numbers for one image: area, aspect, top and left of each attempt.
DRAWS = 4 * ATTEMPTS

Box = tuple[float, float, float, float]


def batch_draws(seed: int, number: int, batch_size: int) -> np.ndarray:
    """Returns random numbers in [0, 1) for one training batch, (batch_size, DRAWS), a row for each image."""
    # The counter keeps this stream apart from that of the order of examples, whose key is (seed, epoch).
    bits = np.random.Philox(key=[seed, number], counter=[0, 0, 0, 1])
    return np.random.Generator(bits).random((batch_size, DRAWS))


def crop_box(kind: str, draws: np.ndarray, height: int, width: int, size: int, sides: tuple[int, int]) -> Box:
    """Returns the box of one image.

    Args:
      kind: one of CROPS.
      draws: its row of `batch_draws`.
      height, width: of the image.
      size: side of training images in pixels.
      sides: least and largest shorter side for "scale"; "center" takes the first.
    """
    if kind == "scale":
        return scale_box(draws, height, width, size, sides)
    if kind == "aspect":
        return aspect_box(draws, height, width)
    return center_box(height, width, size, sides[0])


def scale_box(draws: np.ndarray, height: int, width: int, size: int, sides: tuple[int, int]) -> Box:
    """Resizes the shorter side to a random whole number in `sides`, both included, and crops `size` pixels at a random
    place (He et al. 2015, section 3.4)."""
    least, most = sides
    shorter = least + min(int(draws[0] * (most - least + 1)), most - least)
    scale = shorter / min(height, width)
    # Corners lie on whole pixels of the resized image.
    room = [max(0, round(side * scale) - size) for side in (height, width)]
    top, left = (int(draw * (pixels + 1)) for draw, pixels in zip(draws[1:3], room, strict=True))
    return top / scale, left / scale, size / scale, size / scale


def aspect_box(draws: np.ndarray, height: int, width: int) -> Box:
    """Crops 8 to 100 % of the area at a log-uniform aspect ratio from 3/4 to 4/3 (Szegedy et al. 2014, section 6).

    If ten attempts do not fit, the largest centred box within those ratios is taken.
    """
    for area, aspect, y, x in draws.reshape(ATTEMPTS, 4):
        pixels = (0.08 + 0.92 * area) * height * width
        ratio = math.exp(math.log(3 / 4) + aspect * math.log(16 / 9))
        box_width, box_height = round(math.sqrt(pixels * ratio)), round(math.sqrt(pixels / ratio))
        if 0 < box_width <= width and 0 < box_height <= height:
            top, left = int(y * (height - box_height + 1)), int(x * (width - box_width + 1))
            return float(top), float(left), float(box_height), float(box_width)
    box_width, box_height = min(width, round(height * 4 / 3)), min(height, round(width * 4 / 3))
    return (height - box_height) / 2, (width - box_width) / 2, float(box_height), float(box_width)


def center_box(height: int, width: int, size: int, shorter_side: int) -> Box:
    """Crops the centre `size` pixels after the shorter side is resized to `shorter_side`."""
    side = size * min(height, width) / shorter_side
    return (height - side) / 2, (width - side) / 2, side, side
