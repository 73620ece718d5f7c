"""Finds objects by one or several nets, at one or several sizes of the images, once or twice."""

import dataclasses
from collections.abc import Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from resnet_jax.models.detection.boxes import area
from resnet_jax.models.detection.detector import View
from resnet_jax.models.detection.regions import Boxes, Detections, Predictions, select

#: NMS's IoU among boxes of both rounds of box refinement, and the IoU of boxes that vote (He et al. 2015, appendix B).
REFINED_NMS, VOTING = 0.3, 0.5


class Shown(NamedTuple):
    """Holds a batch of images at one size.

    Attributes:
      images: normalised, (batch, height, width, channels).
      sizes: int32 (batch, 2), heights and widths without padding.
    """

    images: Array
    sizes: Array


@dataclasses.dataclass(frozen=True)
class Member:
    """Holds a net with what it is shown of a batch.

    Attributes:
      net: a `models.detection.detector.Detector`.
      variables: its own.
      base: the images at the size at which regions are proposed, and in whose pixels boxes are; the same for all nets.
      pyramid: the images at the sizes at which regions are seen, the smallest first; empty: at that of `base`.
      proposals: regions that another net proposes; None: the net proposes its own.
    """

    net: Any
    variables: Any
    base: Shown
    pyramid: Sequence[Shown] = ()
    proposals: Boxes | None = None

    def call(self, part: str, *arguments: Any) -> Any:
        """Calls a method of the net."""
        return self.net.apply(self.variables, arguments, part=part)

    def propose(self) -> tuple[Any, Boxes]:
        """Returns the net's features of `base`, and the regions that it is to see."""
        if self.proposals is not None:
            return self.call("image_features", self.base.images, False), self.proposals
        found: tuple[Any, Boxes] = self.call("propose_regions", *self.base)
        return found

    def views(self, features: Any) -> list[View]:
        """Returns what the net sees of the images, given its features of `base`."""
        if not self.pyramid:
            return [View(features, jnp.ones(self.base.sizes.shape, jnp.float32))]
        return [
            View(
                features if one is self.base else self.call("image_features", one.images, False),
                one.sizes / self.base.sizes,
            )
            for one in self.pyramid
        ]


def find_objects(members: Sequence[Member], refine: bool = False) -> Detections:
    """Returns what the nets find together in a batch; a single net at one size finds what it finds by itself.

    Every net classifies the regions that any of them proposes, and scores and boxes are averaged (He et al. 2015,
    appendix A, "ensemble").

    Args:
      members: the nets; the first one's fields say what is kept.
      refine: whether the box of the best class of each region is seen as a region again. What is predicted of both
        rounds is joined, and kept boxes are means of those around them (appendix B, "box refinement").
    """
    proposed = [member.propose() for member in members]
    views = [member.views(features) for member, (features, _) in zip(members, proposed, strict=True)]
    sizes = members[0].base.sizes

    def predict(regions: Boxes) -> Predictions:
        return _mean([
            member.call("predict_regions", seen, regions, sizes) for member, seen in zip(members, views, strict=True)
        ])  # fmt: skip

    predictions = predict(_joined([regions for _, regions in proposed]))
    first = members[0].net
    choose = partial(select, threshold=first.nms_threshold, least=first.least_score, most=first.detections)
    if refine:
        predictions = _joined([predictions, predict(best_boxes(predictions))])
        choose = partial(choose, threshold=REFINED_NMS, voting=VOTING)
    return jax.vmap(choose)(predictions)


def best_boxes(predictions: Predictions) -> Boxes:
    """Returns the box of the best class of each region; one without area is none."""
    best = jnp.argmax(predictions.scores, axis=-1)[..., None, None]
    boxes = jnp.take_along_axis(predictions.boxes, best, axis=-2)[..., 0, :]
    return Boxes(boxes, predictions.valid & (area(boxes) > 0))


def _mean(members: Sequence[Predictions]) -> Predictions:
    boxes, scores = (sum(getattr(one, name) for one in members) / len(members) for name in ("boxes", "scores"))
    return Predictions(boxes, scores, members[0].valid)


def _joined(parts: Sequence[Any]) -> Any:
    return jax.tree.map(lambda *arrays: jnp.concatenate(arrays, axis=1), *parts)
