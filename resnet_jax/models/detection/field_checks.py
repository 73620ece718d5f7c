"""The values that a detector's fields can have."""

from numbers import Integral, Real
from typing import TYPE_CHECKING

from resnet_jax.errors import UserError, unknown_name
from resnet_jax.models.detection.anchors import GRIDS
from resnet_jax.models.detection.roi_levels import POOLS

if TYPE_CHECKING:
    from resnet_jax.models.detection.detector import Detector


def check_detector(net: "Detector") -> None:
    """Raises UserError for unknown values, and for numbers that make no sense."""
    for field, known in (("region_pool", POOLS), ("anchor_grid", GRIDS)):
        if getattr(net, field) not in known:
            raise unknown_name(field, getattr(net, field), known)
    for field in ("anchor_sizes", "anchor_ratios"):
        if not (values := getattr(net, field)) or not all(isinstance(x, Real) for x in values):
            raise UserError(f"{field}={tuple(values)} must be numbers, one at least")
    for field in ("train_proposals", "test_proposals"):
        if len(values := getattr(net, field)) != 2 or not all(isinstance(x, Integral) for x in values):
            raise UserError(f"{field}={tuple(values)} must be whole numbers, ahead of NMS and behind it")
    if net.smallest_proposal < 0:
        raise UserError(f"smallest_proposal={net.smallest_proposal} must be 0 or more, in pixels")
    for field in ("foreground", "rpn_threshold", "nms_threshold", "least_score"):
        if not 0 <= getattr(net, field) <= 1:
            raise UserError(f"{field}={getattr(net, field)} must be from 0 to 1")
    numbers = (*net.anchor_sizes, *net.anchor_ratios, *net.train_proposals, *net.test_proposals, net.regions,
               net.rpn_stride, net.rpn_features, net.rpn_anchors, net.region_size, net.detections,
               net.region_beta)  # fmt: skip
    if min(numbers) <= 0:
        raise UserError("sizes, ratios, strides and numbers of anchors, proposals and regions must be above 0")
    if len(net.anchor_sizes) % len(net.strides):
        raise UserError(f"{len(net.anchor_sizes)} anchor_sizes cannot be shared out among {len(net.strides)} "
                        "levels of features: as many for each")  # fmt: skip
