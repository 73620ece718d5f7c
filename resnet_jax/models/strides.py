"""Strides and dilations of a net's stages, from its fields."""

import itertools
import operator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from resnet_jax.models.resnet import ResNet


def stem_stride(net: "ResNet") -> int:
    """Pixels from one position behind the stem to the next."""
    return 4 if net.stem == "imagenet" else 1


def total_stride(net: "ResNet") -> int:
    """Pixels from one position of the last stage to the next."""
    return output_strides(net)[-1]


def output_strides(net: "ResNet") -> tuple[int, ...]:
    """Pixels from one position of each stage's output to the next."""
    own = (stride for stride, _ in stage_strides(net))
    return tuple(itertools.accumulate(own, operator.mul, initial=stem_stride(net)))[1:]


def stage_strides(net: "ResNet") -> list[tuple[int, tuple[int, int]]]:
    """(stride, (dilation ahead of it, dilation behind it)) of each stage; see `ResNet.output_stride`."""
    stride, dilation, plan = stem_stride(net), 1, []
    for i in range(len(net.stage_sizes)):
        own, before = (1 if i == 0 else 2), dilation
        if net.output_stride is not None and stride * own > net.output_stride:
            dilation, own = dilation * own, 1
        stride *= own
        plan.append((own, (before, dilation)))
    return plan
