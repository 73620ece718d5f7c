"""Says where a set's images and the sizes of a config do not go together, though they can be trained on."""

from collections.abc import Iterator

import numpy as np

from resnet_jax.data.image_files import DecodeError, image_size
from resnet_jax.data.imagenet.source import RecordError, Source

#: Images of at most so many pixels on their shorter side are small; so many of a set are looked at.
SMALL, SAMPLED = 64, 8


def size_notes(source: Source, size: int, sides: tuple[int, int] | None, test_side: int) -> Iterator[str]:
    """Yields sentences on images that are enlarged, and on crops that show little of an image.

    Args:
      source: the training images.
      size: side of the crops in pixels.
      sides: least and largest shorter side that training images have ahead of the crop; None: it is cut from the
        images as they are.
      test_side: shorter side of test images ahead of the crop; 0: they are shown whole.
    """
    side = _largest_side(source)
    enlarged = size if size > SMALL or sides is None else sides[0]
    if side is not None and side <= SMALL < enlarged:
        part = "" if enlarged == size else f", and {size} of these are trained on at a time"
        yield (
            f"the images are small, {side} pixels, and are enlarged to {enlarged}{part}; "
            f"--config.data.image_size={side} --config.data.eval_shorter_side={side} --config.data.crop=aspect "
            "keeps them, for a net of small images, whose config.model.stem is cifar"
        )
        return
    # In the papers 224 pixels are cut of 256 to 480 in training, and of 256 in testing.
    least, most = (round(size * of / 224) for of in (256, 480))
    shown = [] if sides is None else [("trained", sides[0], f"shorter_side=({least},{most})")]
    shown.append(("tested", test_side, f"eval_shorter_side={least}"))
    for what, whole, better in shown:
        if 2 * size < whole:
            yield f"{what} on crops of {size} pixels of images of {whole} or more: --config.data.{better} shows more"


def _largest_side(source: Source) -> int | None:
    """Returns the largest shorter side of a few images in pixels; None if none of them can be read."""
    sides = []
    for index in np.unique(np.linspace(0, len(source) - 1, SAMPLED, dtype=int)):
        try:
            sides.append(min(image_size(source.load(int(index)).data)))
        except (RecordError, DecodeError):
            continue
    return max(sides, default=None)
