"""Images with boxes as the files have them, and what is left out of them."""

import dataclasses
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TypeVar

import numpy as np

from resnet_jax.errors import UserError, with_notes

T = TypeVar("T")


@dataclasses.dataclass(frozen=True)
class AnnotatedImage:
    """Holds an image's file and its boxes.

    Attributes:
      path: of the file.
      height, width: in pixels.
      boxes: float32 (n, 4), (x1, y1, x2, y2) from the upper left corner; see `models.detection.boxes`.
      labels: int32 (n,).
      ignored: bool (n,): `difficult` of PASCAL VOC, a crowd of COCO.
      areas: float32 (n,), in pixels; COCO counts those of the outlines.
    """

    path: Path
    height: int
    width: int
    boxes: np.ndarray
    labels: np.ndarray
    ignored: np.ndarray
    areas: np.ndarray


class Remarks:
    """Counts what is left out or mended, by kind, and says each kind in one sentence."""

    def __init__(self) -> None:
        self._found: dict[str, tuple[int, str]] = {}

    def add(self, kind: str, where: object) -> None:
        """Counts one; `kind` is a sentence that begins after the number, as "boxes without area are left out"."""
        count, first = self._found.get(kind, (0, str(where)))
        self._found[kind] = count + 1, first

    def sentences(self) -> tuple[str, ...]:
        """Returns "2 boxes without area are left out, as in a.xml" and the like."""
        return tuple(f"{count:,} {kind}, as in {first}" for kind, (count, first) in self._found.items())

    def refusal(self, message: str) -> UserError:
        """Returns the error of a set that cannot be used: what is wrong, and what was left out of it."""
        return with_notes(message, self.sentences())


def held_out(images: Sequence[T], share: float) -> tuple[list[T], list[T]]:
    """Splits images into those to train on and a random share to evaluate on, the same whatever the run's seed."""
    order = np.random.Generator(np.random.Philox(0)).permutation(len(images))
    held = set(order[: max(1, round(share * len(images)))].tolist())
    test = [image for i, image in enumerate(images) if i in held]
    return [image for i, image in enumerate(images) if i not in held], test


def turned(boxes: np.ndarray, turn: int, height: int, width: int) -> np.ndarray:
    """Returns boxes (n, 4) of an image as its file stores it in the image upright.

    Args:
      boxes: (x1, y1, x2, y2) of each.
      turn: EXIF's number for how the camera was held, 1 to 8.
      height, width: of the image as it is stored.
    """
    x1, y1, x2, y2 = np.asarray(boxes, np.float32).reshape(-1, 4).T
    if turn > 4:  # rows are columns
        x1, y1, x2, y2, height, width = y1, x1, y2, x2, width, height
    if turn in (2, 3, 6, 7):
        x1, x2 = width - x2, width - x1
    if turn in (3, 4, 7, 8):
        y1, y2 = height - y2, height - y1
    return np.stack([x1, y1, x2, y2], axis=1)


def upright(boxes: Sequence[Sequence[float]], said: tuple[int, int], size: tuple[int, int], turn: int, name: str,
            remarks: Remarks) -> np.ndarray:  # fmt: skip
    """Returns boxes in the image upright; those that were drawn on the file as it is stored are turned with it.

    The size that the annotations say tells which it was, for an image that EXIF turns by a quarter. Of one that it
    turns by half or mirrors, boxes are taken as drawn upright.

    Args:
      boxes: (x1, y1, x2, y2) of each.
      said: (height, width) of the image by its annotations; 0 where they do not say.
      size: (height, width) of the image upright.
      turn: EXIF's number for how the camera was held.
      name: of the image, in remarks.
      remarks: where images are counted that are turned, or of another size than said.
    """
    found = np.asarray(boxes, np.float32).reshape(-1, 4)
    if turn > 4 and said == size[::-1] and said != size:
        remarks.add("images are turned by their EXIF note, and their boxes with them: the size that the annotations "
                    "say is that of the file as it is stored", name)  # fmt: skip
        return turned(found, turn, *said)
    if turn > 1 and len(found) and (turn <= 4 or size[0] == size[1] or min(said) <= 0):
        remarks.add("images are turned by their EXIF note in a way that no size tells, and their boxes are taken as "
                    "drawn on the turned ones", name)  # fmt: skip
    if min(said) > 0 and said != size:
        remarks.add("images have another size than their annotations say; boxes are taken as pixels of the image", name)
    return found


#: Pixels by which a box may reach beyond its image without a remark: some tools count from 0, and others from 1.
SLACK = 1.0


def usable(boxes: Sequence[Sequence[float]] | np.ndarray, height: int, width: int, name: str, remarks: Remarks,
           empty: float = 0.0) -> Iterator[tuple[int, np.ndarray]]:  # fmt: skip
    """Yields the index of each box that can be used, and the box within its image; the others are counted.

    Args:
      boxes: (x1, y1, x2, y2) of each.
      height, width: of the image.
      name: of the image, in remarks.
      remarks: where the others are counted.
      empty: length of the sides of a box whose corners are the same: 1 where both ends count.
    """
    for i, box in enumerate(np.asarray(boxes, np.float32).reshape(-1, 4)):
        if not np.isfinite(box).all():
            remarks.add("boxes with coordinates that are no numbers are left out", name)
        elif (box[2:] - box[:2] < empty).any():
            remarks.add("boxes whose right or lower side lies ahead of the other are left out", name)
        elif (box[2:] - box[:2] == empty).any():
            remarks.add("boxes without area are left out", name)
        else:
            inside = np.clip(box, 0, np.array([width, height] * 2, np.float32))
            if (inside[2:] <= inside[:2]).any():
                remarks.add("boxes outside their image are left out", name)
                continue
            if np.abs(inside - box).max() > SLACK:
                remarks.add("boxes that reach beyond their image are cut off at its border", name)
            yield i, inside


@dataclasses.dataclass(frozen=True)
class BoxSplits:
    """Holds the parts of a set.

    Attributes:
      train, test: images to train on, and to evaluate on.
      classes: names by label.
      evaluated_on: what the latter are: "test", "validation" or "held_out".
      remarks: sentences on what was left out.
    """

    train: Sequence[AnnotatedImage]
    test: Sequence[AnnotatedImage]
    classes: tuple[str, ...]
    evaluated_on: str
    remarks: tuple[str, ...] = ()
