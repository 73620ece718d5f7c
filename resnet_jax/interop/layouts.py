"""Names of the same layers in other projects: a table of layouts, and the one engine that reads it in both ways.

A layout is rows of (our module, theirs). `{s}`, `{b}` and `{i}` stand for stage, unit and layer as we count them, from
1; `{s0}`, `{b0}`, `{i0}` for one less, `{i1}` for one more, and `{n0}` for the unit's place in the whole net from 0.
"""

import dataclasses
import functools
import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from resnet_jax.models.detection.fpn import FPNDetector
from resnet_jax.models.registry import VARIANTS
from resnet_jax.models.resnet import ResNet
from resnet_jax.models.vgg import VGG

#: Of RGB in [0, 1], as in `data.augment`, which this room does not import.
IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)

Rows = tuple[tuple[str, str], ...]


@dataclasses.dataclass(frozen=True)
class Layout:
    """Says how a project names a net's layers.

    Attributes:
      name: what it is called here.
      projects: whose it is, in words.
      rows: see the module.
      fields: fields of the net that this project's code has, where they differ from ours.
      flax: whether leaves and axes are Flax's: `params/conv_init/kernel`; else PyTorch's: `conv1.weight`, OIHW.
      conv_head: whether the classifier is a 1x1 convolution.
      net: class of our nets that have this project's tensors.
      needs: our modules without which a file's net is another one, though it has some of these names, the net's first
        one ahead of others.
      resizing: how the project resizes images ahead of its net; see `Weights.resizing`.
      mean, std: of pixels in [0, 1], which its weights for ImageNet take images normalised by.
    """

    name: str
    projects: str
    rows: Rows
    fields: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    net: type[ResNet] | type[VGG] = ResNet
    flax: bool = False
    conv_head: bool = False
    needs: tuple[str, ...] = ("stem/conv",)
    resizing: str = "area"
    mean: tuple[float, ...] = IMAGENET_MEAN
    std: tuple[float, ...] = IMAGENET_STD


def _layers(unit: str, conv: str, norm: str, projection: str, projection_norm: str) -> Rows:
    """Returns the rows of a unit with batch norm behind each convolution."""
    ours = "stage{s}/block{b}/"
    return (
        (ours + "conv{i}", unit + conv), (ours + "bn{i}", unit + norm),
        (ours + "shortcut/conv", unit + projection), (ours + "shortcut/bn", unit + projection_norm),
    )  # fmt: skip


def _torch(head: str, shortcut: str, prefix: str = "") -> Rows:
    unit = _layers(prefix + "layer{s}.{b0}.", "conv{i}", "bn{i}", f"{shortcut}.0", f"{shortcut}.1")
    return (("stem/conv", f"{prefix}conv1"), ("stem/bn", f"{prefix}bn1"), *unit, ("head", head))


def _segmentation(head: str, *decoder: tuple[str, str]) -> Layout:
    """Returns the layout of torchvision's nets that segment; `decoder` are (conv or BN of ours, theirs)."""
    auxiliary = (("aux/conv", "aux_classifier.0"), ("aux/bn", "aux_classifier.1"), ("aux_head", "aux_classifier.4"))
    rows = tuple((f"decoder/{ours}", f"classifier.{theirs}") for ours, theirs in decoder)
    return Layout(
        f"torchvision_{head}", f"torchvision's {head}", (*_torch("classifier.4", "downsample", "backbone."), *rows,
        *auxiliary), fields={"head": head, "output_stride": 8},
    )  # fmt: skip


def _vgg(name: str) -> Layout:
    """Returns the layout of torchvision's net: convolutions and pools are numbered in one sequence, ReLUs too."""
    sizes = VARIANTS[name].fields["stage_sizes"]
    rows, number = [], 0
    for stage, size in enumerate(sizes, start=1):
        for i in range(1, size + 1):
            rows.append((f"stage{stage}/conv{i}", f"features.{number}"))
            number += 2
        number += 1
    dense = (("fc1", "classifier.0"), ("fc2", "classifier.3"), ("head", "classifier.6"))
    return Layout(f"torchvision_{name}", f"torchvision's {name}", (*rows, *dense), {"stage_sizes": sizes}, VGG,
                  needs=("stage1/conv1", "stage1/conv2"))  # fmt: skip


def _faster_rcnn(name: str, conv: str, lateral: str) -> Layout:
    """Returns the layout of torchvision's detectors on a pyramid, by what they call convolutions in its parts."""
    rows = (
        ("fpn/lateral{i}", f"backbone.fpn.inner_blocks.{{i0}}{lateral}"),
        ("fpn/output{i}", f"backbone.fpn.layer_blocks.{{i0}}{lateral}"),
        ("rpn/conv", f"rpn.head.{conv}"), ("rpn/objectness", "rpn.head.cls_logits"),
        ("rpn/boxes", "rpn.head.bbox_pred"),
        ("region_head/fc1", "roi_heads.box_head.fc6"), ("region_head/fc2", "roi_heads.box_head.fc7"),
        ("head_boxes", "roi_heads.box_predictor.bbox_pred"),
    )  # fmt: skip
    body = _torch("roi_heads.box_predictor.cls_score", "downsample", "backbone.body.")
    return Layout(name, "torchvision's Faster R-CNN on a feature pyramid", (*body, *rows), net=FPNDetector,
                  needs=("stem/conv", "region_head/fc1"), resizing="torchvision")  # fmt: skip


def _flax(block: str) -> Rows:
    unit = _layers(f"{block}_{{n0}}/", "Conv_{i0}", "BatchNorm_{i0}", "conv_proj", "norm_proj")
    return (("stem/conv", "conv_init"), ("stem/bn", "bn_init"), *unit, ("head", "Dense_0"))


def _transformers(prefix: str) -> Rows:
    unit = _layers(
        prefix + "encoder.stages.{s0}.layers.{b0}.", "layer.{i0}.convolution", "layer.{i0}.normalization",
        "shortcut.convolution", "shortcut.normalization",
    )  # fmt: skip
    stem = prefix + "embedder.embedder."
    return (("stem/conv", stem + "convolution"), ("stem/bn", stem + "normalization"), *unit)


_TIMM = "stages.{s0}.blocks.{b0}."

#: In the order in which they are preferred where names do not tell them apart.
LAYOUTS: tuple[Layout, ...] = (
    Layout("torchvision", "torchvision, timm's resnet, and CIFAR nets in their names", _torch("fc", "downsample")),
    Layout(
        "akamaster", "pytorch_resnet_cifar10 and others with `linear` and `shortcut`", _torch("linear", "shortcut")
    ),
    Layout("fc_shortcut", "CIFAR nets with `fc` and `shortcut`", _torch("fc", "shortcut")),
    Layout("transformers", "Hugging Face transformers", (*_transformers("resnet."), ("head", "classifier.1"))),
    Layout("transformers_model", "Hugging Face transformers without a classifier", _transformers("")),
    Layout(
        "timm_resnetv2",
        "timm's resnetv2 with batch norm",
        (
            ("stem/conv", "stem.conv"),
            ("stage{s}/block{b}/bn_before", _TIMM + "norm1"),
            ("stage{s}/block{b}/conv{i}", _TIMM + "conv{i}"),
            ("stage{s}/block{b}/bn{i}", _TIMM + "norm{i1}"),
            ("stage{s}/block{b}/shortcut/conv", _TIMM + "downsample.conv"),
            ("final/bn", "norm"),
            ("head", "head.fc"),
        ),
        fields={"activation": "full_preactivation", "stem_norm": False},
        conv_head=True,
        mean=(0.5, 0.5, 0.5),
        std=(0.5, 0.5, 0.5),
    ),
    _segmentation("fcn", ("conv", "0"), ("bn", "1")),
    _segmentation(
        "deeplabv3",
        *((f"branch{k + 1}_{kind}", f"0.convs.{k}.{i}") for k in range(4) for i, kind in enumerate(("conv", "bn"))),
        *((f"pool_{kind}", f"0.convs.4.{i}") for i, kind in ((1, "conv"), (2, "bn"))),
        *((f"project_{kind}", f"0.project.{i}") for i, kind in enumerate(("conv", "bn"))),
        *((f"last_{kind}", f"{i}") for i, kind in ((1, "conv"), (2, "bn"))),
    ),
    *(_vgg(name) for name in ("vgg16", "vgg19")),
    _faster_rcnn("torchvision_faster_rcnn_fpn", "conv.0.0", ".0"),
    # As the published file of 2019 has them.
    _faster_rcnn("torchvision_faster_rcnn_fpn_2019", "conv", ""),
    *(
        Layout(name, "flax/examples/imagenet", _flax(block), {"padding": "same"}, flax=True)
        for name, block in (("flax_bottleneck", "BottleneckResNetBlock"), ("flax_basic", "ResNetBlock"))
    ),
)  # fmt: skip

#: PyTorch's names of our leaves.
_TORCH_LEAVES = {"kernel": "weight", "bias": "bias", "scale": "weight", "mean": "running_mean", "var": "running_var"}

#: Names of leaves, ours or PyTorch's: anything else in a layer is no part of it that is known.
LEAVES = frozenset({*_TORCH_LEAVES, *_TORCH_LEAVES.values()})

#: PyTorch's counter of batches, which nothing here needs.
COUNTER = "num_batches_tracked"

_FIELD = re.compile(r"\{(\w+)\}")


@dataclasses.dataclass(frozen=True)
class Place:
    """Says where a tensor belongs: our module's pattern, as `stage{s}/block{b}/conv{i}`, its numbers, and our leaf."""

    module: str
    numbers: Mapping[str, int]
    leaf: str


@functools.cache
def _pattern(theirs: str) -> re.Pattern[str]:
    """Returns the regular expression of a row's names, with anything that ends in a dot before them."""
    parts = _FIELD.split(theirs)
    quoted = (f"(?P<{part}>[0-9]{{1,5}})" if k % 2 else re.escape(part) for k, part in enumerate(parts))
    return re.compile(r"(?P<prefix>(?:.*\.)?)" + "".join(quoted))


#: What the number of a field is ahead of ours: `{s0}` counts from 0.
_SHIFT = {"s0": 1, "b0": 1, "i0": 1, "n0": 1, "i1": -1}


def find_places(layout: Layout, name: str) -> list[tuple[str, Place]]:
    """Returns where a tensor may belong by its name alone: what is before the layout's name, and the place.

    There may be several: `layer1.0.conv1.weight` is a first convolution, too, in something called `layer1.0.`.
    """
    if layout.flax:
        _, _, rest = name.partition("/")
        module, _, leaf = rest.rpartition("/")
    else:
        module, _, leaf = name.rpartition(".")
    found = []
    for ours, theirs in layout.rows if leaf in LEAVES else ():
        match = _pattern(theirs).fullmatch(module)
        if match and not (layout.flax and match["prefix"]):
            groups = match.groupdict()
            prefix = groups.pop("prefix")
            numbers = {key[0]: int(value) + _SHIFT.get(key, 0) for key, value in groups.items()}
            found.append((prefix, Place(ours, numbers, leaf)))
    return found


def their_module(layout: Layout, module: str, stage_sizes: Sequence[int]) -> str | None:
    """Returns their name of one of our modules, `stage2/block1/conv1`; None if the layout has no place for it."""
    for ours, theirs in layout.rows:
        if match := _pattern(ours).fullmatch(module):
            numbers = {key: int(value) for key, value in match.groupdict().items() if key != "prefix"}
            numbers |= {f"{key}0": value - 1 for key, value in numbers.items()}
            if "s" in numbers:
                numbers["n0"] = sum(stage_sizes[: numbers["s0"]]) + numbers["b0"]
            if "i" in numbers:
                numbers["i1"] = numbers["i"] + 1
            return theirs.format(**numbers)
    return None


def their_name(layout: Layout, name: str, stage_sizes: Sequence[int]) -> str | None:
    """Returns their name of our variable `params/stage2/block1/conv1/kernel`; None if they have none."""
    collection, _, rest = name.partition("/")
    module, _, leaf = rest.rpartition("/")
    theirs = their_module(layout, module, stage_sizes)
    if theirs is None:
        return None
    return f"{collection}/{theirs}/{leaf}" if layout.flax else f"{theirs}.{_TORCH_LEAVES[leaf]}"


def to_theirs(layout: Layout, name: str, array: np.ndarray, channels: int = 0) -> np.ndarray:
    """Returns one of our variables with their axes.

    Args:
      layout: theirs.
      name, array: of the variable.
      channels: of the feature map that a dense layer takes flattened, with channels last here and first in PyTorch; 0:
        it takes none.
    """
    if layout.flax or not name.endswith("/kernel"):
        return array
    if array.ndim == 4:
        array = array.transpose(3, 2, 0, 1)
        # A linear layer of all positions of a region.
        return array.reshape(len(array), -1) if name == "params/region_head/fc1/kernel" else array
    if channels:
        array = array.reshape(-1, channels, array.shape[1]).transpose(1, 0, 2).reshape(array.shape)
    return array.T[:, :, None, None] if layout.conv_head else array.T


def to_ours(layout: Layout, name: str, array: np.ndarray, shape: Sequence[int], channels: int = 0) -> np.ndarray:
    """Returns their tensor of our variable `name` of a shape, with our axes; `channels`: see `to_theirs`."""
    if layout.flax or not name.endswith("/kernel"):
        return array
    if len(shape) == 4:
        rows, columns, inputs, features = shape
        return array.reshape(features, inputs, rows, columns).transpose(2, 3, 1, 0)
    array = (array[:, :, 0, 0] if array.ndim == 4 else array).T
    return array.reshape(channels, -1, array.shape[1]).transpose(1, 0, 2).reshape(array.shape) if channels else array
