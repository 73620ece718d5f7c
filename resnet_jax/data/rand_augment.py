"""RandAugment (Cubuk et al. 2020): random operations of one strength, inside the jitted step, on uint8 pixels.

Every image of a batch gets its own operations, so one compiled program serves them all: a table that pixels are looked
up in, a blend with another version of the image, and an affine warp. An operation is one of the three and leaves the
other two at the identity.
"""

import dataclasses
import math
from collections.abc import Mapping
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

#: The magnitude at the end of each operation's range (section 3 of the paper).
MOST = 10

#: The sets of operations: section 3 of the paper, and timm's `rand-...-inc1`, which Wightman et al. 2021 use.
VARIANTS = {
    "paper": ("identity", "auto_contrast", "equalize", "rotate", "solarize", "color", "posterize", "contrast",
              "brightness", "sharpness", "shear_x", "shear_y", "translate_x", "translate_y"),
    "timm": ("auto_contrast", "equalize", "invert", "rotate", "posterize", "solarize", "solarize_add", "color",
             "contrast", "brightness", "sharpness", "shear_x", "shear_y", "translate_x", "translate_y"),
}  # fmt: skip

OPERATIONS = tuple(dict.fromkeys(VARIANTS["paper"] + VARIANTS["timm"]))

#: Bits that posterize keeps at magnitude 0; it keeps four fewer at the other end.
POSTERIZE_BITS = {"paper": 8, "timm": 4}

# Ends of AutoAugment's ranges (Cubuk et al. 2019, table 6): degrees, pixels per pixel, share of a side (150 of 331
# pixels there), distance of an enhancement's factor from 1, grey levels.
DEGREES, SHEAR, SHIFT, ENHANCE, ADDED = 30, 0.3, 0.45, 0.9, 110

#: Fills what a warp shows from outside the image.
GREY = 128


@dataclasses.dataclass(frozen=True)
class RandAugment:
    """Holds the fields of `config.data.rand_augment`.

    Attributes:
      operations: how many are applied, one after another (N; the paper's 2 for ImageNet); 0: off.
      magnitude: strength of each, from 0 to MOST (M; the paper's 9 for ResNet-50).
      deviation: of the magnitude, drawn for each operation from a normal distribution and clipped to its range.
      probability: that an operation that was drawn is applied.
      variant: a key of VARIANTS.
    """

    operations: int
    magnitude: float
    deviation: float = 0.0
    probability: float = 1.0
    variant: str = "paper"

    @classmethod
    def of_config(cls, fields: Mapping[str, Any]) -> "RandAugment | None":
        """Returns what the fields ask for; None for no operations."""
        return cls(**fields) if fields["operations"] else None


def rand_augment(key: Array, images: Array, how: RandAugment) -> Array:
    """Applies random operations to each image: uint8, (batch, height, width, 1 or 3)."""
    drawn = draw(key, images.shape[0], how)
    apply = jax.vmap(partial(apply_operation, variant=how.variant))
    # With a scan, the operations compile once.
    return jax.lax.scan(lambda x, one: (apply(x, *one), None), images, [values.T for values in drawn])[0]


def draw(key: Array, batch: int, how: RandAugment) -> tuple[Array, Array, Array]:
    """Draws (indices into OPERATIONS, levels in [0, 1], signs), each (batch, operations).

    Operations that are not applied are 0, the identity.
    """
    which_key, level_key, sign_key, done_key = jax.random.split(key, 4)
    shape = (batch, how.operations)
    choice = jnp.array([OPERATIONS.index(name) for name in VARIANTS[how.variant]])
    numbers = jax.random.choice(which_key, choice, shape)
    done = jax.random.bernoulli(done_key, how.probability, shape)
    levels = jnp.clip(how.magnitude + how.deviation * jax.random.normal(level_key, shape), 0, MOST) / MOST
    signs = jnp.where(jax.random.bernoulli(sign_key, 0.5, shape), 1.0, -1.0)
    return jnp.where(done, numbers, 0), levels, signs


def apply_operation(image: Array, number: Array, level: Array, sign: Array, variant: str = "paper") -> Array:
    """Applies one operation to one image, as Pillow does, within one grey level.

    Args:
      image: uint8, (height, width, 1 or 3).
      number: index into OPERATIONS.
      level: strength in [0, 1], a scalar.
      sign: 1 or -1, the direction of operations that have two.
      variant: a key of VARIANTS.
    """

    def chosen(values: dict[str, Array], otherwise: Array) -> Array:
        return jnp.select([number == OPERATIONS.index(name) for name in values], list(values.values()), otherwise)

    # The table comes ahead of floating-point operations: XLA may compute a pixel of theirs twice, with different
    # rounding, and its two nibbles must be those of one value.
    high, low = _nibbles(image)
    tables = _tables(_histogram(high, low), level, POSTERIZE_BITS[variant])
    image = _look_up(high, low, chosen(tables, jnp.arange(256))).reshape(image.shape)
    blended = _blends(image)
    factor = jnp.where(sum(number == OPERATIONS.index(name) for name in blended) > 0, 1 + sign * ENHANCE * level, 1.0)
    image = _blend(chosen(blended, image), image, factor).astype(jnp.uint8)
    height, width, _ = image.shape
    return _warp(image, chosen(_matrices(level * sign, height, width), jnp.array([1.0, 0, 0, 0, 1, 0])))


def _matrices(amount: Array, height: int, width: int) -> dict[str, Array]:
    """Returns (a, b, c, d, e, f): the pixel at (x, y) comes from (a x + b y + c, d x + e y + f); centres are at .5."""
    one, zero = jnp.ones(()), jnp.zeros(())
    angle = -math.radians(DEGREES) * amount
    cos, sin = jnp.cos(angle), jnp.sin(angle)
    x, y = width / 2, height / 2  # rotations turn about the centre; shears are about the corner, as published
    rows = {
        "rotate": (cos, sin, x - x * cos - y * sin, -sin, cos, y + x * sin - y * cos),
        "shear_x": (one, SHEAR * amount, zero, zero, one, zero),
        "shear_y": (one, zero, zero, SHEAR * amount, one, zero),
        "translate_x": (one, zero, SHIFT * width * amount, zero, one, zero),
        "translate_y": (one, zero, zero, zero, one, SHIFT * height * amount),
    }
    return {name: jnp.stack(row) for name, row in rows.items()}


def _warp(image: Array, matrix: Array) -> Array:
    """Warps bilinearly; grey where the source is outside, border pixels repeated within half a pixel of it."""
    height, width, _ = image.shape
    y, x = jnp.meshgrid(jnp.arange(height) + 0.5, jnp.arange(width) + 0.5, indexing="ij")
    a, b, c, d, e, f = matrix
    from_x, from_y = a * x + b * y + c, d * x + e * y + f
    inside = (from_x >= 0) & (from_x < width) & (from_y >= 0) & (from_y < height)
    left, top = jnp.floor(from_x - 0.5), jnp.floor(from_y - 0.5)
    dx, dy = (from_x - 0.5 - left)[..., None], (from_y - 0.5 - top)[..., None]

    def corner(down: int, right: int) -> Array:
        row = jnp.clip(top.astype(jnp.int32) + down, 0, height - 1)
        column = jnp.clip(left.astype(jnp.int32) + right, 0, width - 1)
        places = row * width + column
        taken = jax.lax.platform_dependent(image, places, cpu=take_pixels, default=take_packed_pixels)
        return taken.astype(jnp.float32)

    upper = corner(0, 0) * (1 - dx) + corner(0, 1) * dx
    lower = corner(1, 0) * (1 - dx) + corner(1, 1) * dx
    return jnp.where(inside[..., None], upper * (1 - dy) + lower * dy, GREY).astype(jnp.uint8)


def take_pixels(image: Array, places: Array) -> Array:
    """Returns the pixels at some places, row * width + column: uint32, (..., channels)."""
    return image.reshape(-1, image.shape[-1])[places].astype(jnp.uint32)


def take_packed_pixels(image: Array, places: Array) -> Array:
    """Returns what `take_pixels` does, each pixel's channels taken as one number.

    A TPU takes numbers from computed places one by one. By its compiler's estimate a warp is 13 times as fast so; on a
    CPU it takes three times as long.
    """
    bits = 8 * jnp.arange(image.shape[-1], dtype=jnp.uint32)
    numbers = jnp.sum(image.astype(jnp.uint32) << bits, axis=-1, dtype=jnp.uint32)
    return numbers.reshape(-1)[places][..., None] >> bits & 255


def _nibbles(image: Array) -> tuple[Array, Array]:
    """Returns the upper and lower four bits of each pixel, one-hot: float32, (pixels, channels, 16).

    With them, counting and looking up are matrix products instead of scatters and gathers. They are exact even where an
    accelerator rounds factors to bfloat16 or TF32, which hold whole numbers up to 256.
    """
    pixels = image.reshape(-1, image.shape[-1]).astype(jnp.int32)
    return jax.nn.one_hot(pixels >> 4, 16), jax.nn.one_hot(pixels & 15, 16)


def _histogram(high: Array, low: Array) -> Array:
    """Counts the pixels of each value, int32, (channels, 256)."""
    return jnp.einsum("nch,ncl->chl", high, low).reshape(-1, 256).astype(jnp.int32)


def _look_up(high: Array, low: Array, table: Array) -> Array:
    """Returns each pixel's entry in its channel's table (channels, 256): uint8, (pixels, channels)."""
    rows = jnp.einsum("nch,chl->ncl", high, table.reshape(-1, 16, 16).astype(jnp.float32))
    return jnp.sum(rows * low, axis=-1).astype(jnp.uint8)


def _tables(histogram: Array, level: Array, posterize_bits: int) -> dict[str, Array]:
    """Returns what each operation makes of each value, int32 from 0 to 255, (channels, 256)."""
    value = jnp.arange(256)
    there = histogram > 0
    least, most = jnp.argmax(there, axis=1)[:, None], 255 - jnp.argmax(there[:, ::-1], axis=1)[:, None]
    stretched = jnp.clip((value - least) * 255 // jnp.maximum(most - least, 1), 0, 255)
    # Pixels per step of the output, without those of the largest value. Where there are too few, nothing changes.
    step = (jnp.sum(histogram, axis=1, keepdims=True) - jnp.take_along_axis(histogram, most, axis=1)) // 255
    before = jnp.cumsum(histogram, axis=1) - histogram
    equal = jnp.clip((step // 2 + before) // jnp.maximum(step, 1), 0, 255)
    threshold = 256 - jnp.floor(level * 256).astype(jnp.int32)
    lost = 8 - posterize_bits + jnp.floor(level * 4).astype(jnp.int32)
    added = jnp.minimum(value + jnp.floor(level * ADDED).astype(jnp.int32), 255)
    tables = {
        "auto_contrast": jnp.where(most > least, stretched, value),
        "equalize": jnp.where(step > 0, equal, value),
        "invert": 255 - value,
        "solarize": jnp.where(value < threshold, value, 255 - value),
        "posterize": value >> lost << lost,
        "solarize_add": jnp.where(value < 128, added, value),
    }
    return {name: jnp.broadcast_to(table, histogram.shape) for name, table in tables.items()}


def _blends(image: Array) -> dict[str, Array]:
    """Returns what each enhancement blends with: grey, the mean of the image's grey, black, the blurred image."""
    pixels = image.astype(jnp.int32)
    grey = pixels
    if image.shape[-1] == 3:  # ITU-R 601-2, as Pillow rounds it
        grey = (jnp.sum(pixels * jnp.array([19595, 38470, 7471]), axis=-1, keepdims=True) + 2**15) >> 16
    count = image.shape[0] * image.shape[1]
    mean = (2 * jnp.sum(grey) + count) // (2 * count)
    blurred = pixels
    if min(image.shape[:2]) > 2:
        middle = pixels[1:-1, 1:-1]
        rows = pixels[:-2] + pixels[1:-1] + pixels[2:]
        total = 4 * middle + rows[:, :-2] + rows[:, 1:-1] + rows[:, 2:]
        blurred = pixels.at[1:-1, 1:-1].set((2 * total + 13) // 26)  # borders stay
    versions = {"color": grey, "contrast": mean, "brightness": jnp.array(0), "sharpness": blurred}
    return {name: jnp.broadcast_to(version, image.shape).astype(jnp.uint8) for name, version in versions.items()}


def _blend(other: Array, image: Array, factor: Array) -> Array:
    """Returns other + factor * (image - other), clipped to 0 ... 255."""
    other = other.astype(jnp.float32)
    return jnp.clip(other + factor * (image.astype(jnp.float32) - other), 0, 255)
