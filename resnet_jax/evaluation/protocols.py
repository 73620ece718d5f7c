"""The test protocols of both papers: which views of an image a net is shown; their scores are averaged.

The scores are softmax probabilities, as in Krizhevsky et al. 2012 (section 4.1) and Simonyan and Zisserman 2014
(sections 3.2, 4.2 and 4.4). He et al. 2015 (section 3.4) only say "average the scores"; their ten-crop errors are from
"averaging softmax scores" (README of their models).

On an image larger than those of training, the authors' nets average 7x7 positions at a stride of 1 (pool5 in their
prototxts), classify each average, and average the map of class scores. The classifier is linear, so this equals the
class score of the averaged averages: `ResNet.pool_size`. A plain mean over all positions gives those near a border a
larger weight.
"""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Generic, TypeVar

from jax import Array

from resnet_jax.data.imagenet.test_crops import Crops, ImageViews, WholeImage
from resnet_jax.errors import UserError, unknown_name
from resnet_jax.evaluation import views

#: He et al. 2015, section 3.4.
SCALES = (224, 256, 384, 480, 640)

#: Crop and shorter side of one-crop and ten-crop testing on ImageNet (2015, section 3.4), and the larger crop (2016,
#: section 5: "a single 320x320 crop from s = 320").
CROP, SHORTER_SIDE, LARGE_CROP = 224, 256, 320

Views = Callable[[Array], tuple[Array, ...]]


V = TypeVar("V", Views, ImageViews)


@dataclasses.dataclass(frozen=True)
class _Protocol(Generic[V]):
    """Describes a way of testing.

    Attributes:
      name: its name on the command line.
      metric: name of the errors that it measures, and of a run's file of them.
      views: makes the views. For small images of one size: from normalised images (batch, height, width, channels) to
        views of any size. For photographs: see `ImageViews`.
      description: of the views, as part of a sentence.
      shorter_sides: of the views, or of the images that they are cut from, in pixels; empty for images at their own
        size.
      crop: side of the crops in pixels; None: images are shown whole.
      mirrored: whether mirror images are shown, too. Those of photographs are not among `views`.
      fully_convolutional: whether the net keeps the pool of its training images, see above.
    """

    name: str
    metric: str
    views: V
    description: str
    shorter_sides: tuple[int, ...] = ()
    crop: int | None = None
    mirrored: bool = False
    fully_convolutional: bool = False


Protocol = _Protocol[Views]
PhotographProtocol = _Protocol[ImageViews]


def single_view() -> Protocol:
    """Shows the image as it is, once (He et al. 2015, section 4.2)."""
    return Protocol("single_view", "single_view", lambda images: (images,), "the image as it is")


def ten_crop_padded(padding: int) -> Protocol:
    """Shows corners, centre and their mirror images of small images, cut from the image padded as in training.

    Crops have the image's own size: the net was trained on such crops, and the centre is the image itself.
    """

    def cut(images: Array) -> tuple[Array, ...]:
        height, width = images.shape[1:3]
        return views.ten_crops(views.pad(images, padding), (height, width))

    description = f"ten crops of the image padded by {padding} pixels"
    return Protocol("ten_crop", "ten_crop", cut, description, mirrored=True)


def multi_scale(scales: Sequence[int]) -> Protocol:
    """Shows the whole image and its mirror image at several shorter sides (2015, section 3.4)."""

    def scale(images: Array) -> tuple[Array, ...]:
        resized = [views.resize_shorter_side(images, side) for side in scales]
        return tuple(view for one in resized for view in (one, views.mirrored(one)))

    name = "multi_scale"
    return Protocol(name, name, scale, _description(scales), tuple(scales), mirrored=True, fully_convolutional=True)


NAMES = ("single_view", "centre_crop", "ten_crop", "multi_scale", "crop320")


def choose(name: str, *, size: int, padding: int = 0, scales: Sequence[int] = (), any_size: bool = True) -> Protocol:
    """Returns the protocol of a name for a set of small images.

    Args:
      name: one of `NAMES`.
      size: side of the images in pixels, as CIFAR's 32.
      padding: pixels that they are padded by in training.
      scales: shorter sides in pixels for "multi_scale".
      any_size: whether the net takes images of any size, unlike VGG with its fully connected layers.

    Raises:
      UserError: for an unknown name, or one that does not fit such images or such a net.
    """
    _check(name, scales, any_size)
    if name == "single_view":
        return single_view()
    if name == "ten_crop":
        if not padding:
            raise UserError(
                f"ten_crop cuts from images padded as in training, and this run has config.data.padding=0: its "
                f"{size}-pixel images have one crop, which is single_view"
            )
        return ten_crop_padded(padding)
    if name == "multi_scale":
        if not scales:
            raise _needs_scales(size)
        return multi_scale(scales)
    if name == "centre_crop":
        raise UserError(f"images of {size} pixels are shown whole: their centre crop is single_view")
    raise UserError(
        f"crop320 is for photographs, not for images of {size} pixels; choose single_view or ten_crop, or larger "
        f"images by multi_scale with --scales={size},{size * 5 // 4}"
    )


def choose_for_photographs(name: str, *, crop: int = CROP, side: int = SHORTER_SIDE, scales: Sequence[int] = (),
                           any_size: bool = True) -> PhotographProtocol:  # fmt: skip
    """Returns the protocol of a name for photographs of any size, as ImageNet's.

    Args:
      name: one of `NAMES`.
      crop: side in pixels of the crops that the net was trained on, and of one and ten crops.
      side: shorter side in pixels that they are cut from.
      scales: shorter sides for "multi_scale", instead of the paper's.
      any_size: see `choose`.

    Raises:
      UserError: see `choose`.
    """
    _check(name, scales, any_size)
    if name == "centre_crop":
        return _one_crop(name, crop, side)
    if name == "crop320":
        return dataclasses.replace(_one_crop(name, LARGE_CROP, LARGE_CROP), fully_convolutional=True)
    if name == "ten_crop":
        description = f"ten crops of {crop} pixels, shorter side {side}"
        return PhotographProtocol(
            name, name, Crops(crop, side, corners=True), description, (side,), crop, mirrored=True
        )
    if name == "multi_scale":
        if not scales and crop != CROP:
            raise _needs_scales(crop)
        sides = tuple(scales or SCALES)
        return PhotographProtocol(
            name, name, WholeImage(sides), _description(sides), sides, mirrored=True, fully_convolutional=True
        )
    raise UserError("single_view shows images as they are, and these have many sizes; choose centre_crop")


def _one_crop(name: str, crop: int, side: int) -> PhotographProtocol:
    description = f"one centre crop of {crop} pixels, shorter side {side}"
    return PhotographProtocol(name, f"single_crop_{crop}", Crops(crop, side), description, (side,), crop)


def _check(name: str, scales: Sequence[int], any_size: bool) -> None:
    if name not in NAMES:
        raise unknown_name("protocol", name, NAMES)
    if scales and name != "multi_scale":
        raise UserError(f"--scales is for --protocol=multi_scale, not for {name}")
    if name in ("multi_scale", "crop320") and not any_size:
        raise UserError(f"{name} needs a net that takes images of any size, as those with global average pooling do")
    if any(side < 1 for side in scales):
        raise UserError(f"--scales={','.join(map(str, scales))} must be pixels, 1 or more")


def _needs_scales(size: int) -> UserError:
    return UserError(
        f"multi_scale's shorter sides {', '.join(map(str, SCALES))} are for nets trained on crops of {CROP} pixels; "
        f"for images of {size} pixels choose some by --scales, as --scales={size},{size * 5 // 4}"
    )


def _description(sides: Sequence[int]) -> str:
    return f"whole and mirrored at shorter sides {', '.join(map(str, sides))}"
