"""Tells which net a file's names and shapes are of."""

import dataclasses
import math
from collections import defaultdict
from collections.abc import Mapping
from typing import Any

from resnet_jax.errors import UserError
from resnet_jax.interop.layouts import Layout, Place
from resnet_jax.models.detection.fpn import FPNDetector
from resnet_jax.models.heads import ASPP_WIDTH
from resnet_jax.models.registry import VARIANTS, get_variant
from resnet_jax.models.resnet import ResNet
from resnet_jax.models.vgg import VGG

#: Fields by which a named net is found.
KEYS = (
    "head", "block", "activation", "groups", "width_per_group", "stage_sizes", "widths", "stem", "stem_width",
    "shortcut",
)  # fmt: skip

#: Fields that a file that is to fit a named net must agree in; others are taken from the file.
MUST_AGREE = KEYS[:6]

_DEFAULTS = {field.name: field.default for field in dataclasses.fields(ResNet)}


@dataclasses.dataclass(frozen=True)
class Structure:
    """Holds what names and shapes say of a net.

    Attributes:
      layout: whose names they are.
      fields: of the layout's class of nets: `KEYS`, `num_classes`, and what else its tensors tell; of `VGG`:
        `stage_sizes`, `widths`, `hidden` and `num_classes`.
      channels: of the images.
      image_size: side of the images in pixels, where the shapes say it; 0: that of the named net.
    """

    layout: Layout
    fields: Mapping[str, Any]
    channels: int
    image_size: int = 0

    @property
    def features(self) -> int:
        """Returns how many features the classifier gets."""
        if self.layout.net is VGG:
            return self.fields["hidden"]
        return self.fields["widths"][-1] * (4 if self.fields["block"] == "bottleneck" else 1)

    def describe(self) -> str:
        """Says it in words: `resnet34 (basic units 3-4-6-3, widths 64-128-256-512)`."""
        fields = self.fields
        if self.layout.net is VGG:
            return f"{nearest_name(self)} (widths {_dashes(fields['widths'])}, {fields['hidden']} hidden features)"
        name = nearest_name(self) if _named(fields, self.layout.net) else "a net of its own"
        kind = "pre-activation " if fields["activation"] != "original" else ""
        sizes, widths = (_dashes(fields[key]) for key in ("stage_sizes", "widths"))
        return f"{name} ({kind}{fields['block']} units {sizes}, widths {widths})"


def structure_of(layout: Layout, found: Mapping[str, tuple[Place, tuple[int, ...]]]) -> Structure:
    """Returns the net that tensors of a layout are of. Without a classifier it has 0 classes.

    Args:
      layout: whose names they have.
      found: place and shape of each tensor.

    Raises:
      LookupError, ValueError: saying what is lacking.
    """
    kernels: dict[str, tuple[int, ...]] = {}  # out, in, rows, columns
    units: dict[tuple[int, int], dict[str, tuple[int, ...]]] = defaultdict(dict)
    for place, shape in found.values():
        if place.leaf not in ("kernel", "weight") or len(shape) not in (2, 4):
            continue
        if len(shape) == 4:
            shape = (shape[3], shape[2], shape[0], shape[1]) if layout.flax else shape
        elif layout.flax:
            shape = shape[::-1]
        if "{b}" not in place.module:
            kernels[place.module] = shape
        elif "conv" in place.module:
            part = place.module.rpartition("block{b}/")[2].replace("{i}", str(place.numbers.get("i", 0)))
            unit = (0, place.numbers["n"]) if "n" in place.numbers else (place.numbers["s"], place.numbers["b"])
            units[unit][part] = shape
    if layout.net is VGG:
        return _vgg(layout, kernels)
    if "stem/conv" not in kernels:
        raise LookupError("there is no first convolution")
    stages = _stages(units)
    layers = max(int(part[-1]) for parts in units.values() for part in parts if part.startswith("conv"))
    projected = {unit for stage in stages for unit, parts in enumerate(stage) if "shortcut/conv" in parts}
    stem = {7: "imagenet", 3: "cifar"}.get(kernels["stem/conv"][2])
    if layers > 3 or stem is None:
        raise LookupError(f"units of {layers} layers and a stem of {kernels['stem/conv'][2]} pixels are of no net here")
    widths = tuple(_width(stage) for stage in stages)
    groups, width_per_group = _groups(stages[0], widths[0]) if layers == 3 else (1, 64)
    stem_width = kernels["stem/conv"][0]
    fields = {
        "head": layout.fields.get("head", "classifier"),
        "block": ("single", "basic", "bottleneck")[layers - 1],
        "groups": groups,
        "width_per_group": width_per_group,
        "stem_width": None if stem_width == widths[0] else stem_width,
        "activation": layout.fields.get("activation", "original"),
        "stage_sizes": tuple(len(stage) for stage in stages),
        "widths": widths,
        "stem": stem,
        "shortcut": "A" if not projected else "B" if projected == {0} else "C",
        "num_classes": kernels["head"][0] if "head" in kernels else 0,
    }
    if fields["head"] != "classifier":
        fields |= {"aux_head": "aux_head" in kernels, "head_width": _head_width(kernels)}
    if layout.net is FPNDetector:
        laterals = {place.numbers["i"] for place, _ in found.values() if place.module == "fpn/lateral{i}"}
        fields |= _detector_fields(kernels, len(stages) - len(laterals) + 1)
    side = 32 if stem == "cifar" and layout.net is ResNet else 0
    return Structure(layout, fields, kernels["stem/conv"][1], side)


def _vgg(layout: Layout, kernels: Mapping[str, tuple[int, ...]]) -> Structure:
    sizes = layout.fields["stage_sizes"]
    names = [f"stage{s}/conv{i}" for s, size in enumerate(sizes, start=1) for i in range(1, size + 1)]
    if lacking := [name for name in (*names, "fc1", "fc2") if name not in kernels]:
        raise LookupError(f"there is no {lacking[0]}")
    widths = tuple(kernels[f"stage{s}/conv1"][0] for s in range(1, len(sizes) + 1))
    hidden, inputs = kernels["fc1"][:2]
    side = math.isqrt(inputs // max(widths[-1], 1))
    if side**2 * widths[-1] != inputs or not side:
        raise LookupError(f"fc1 takes {inputs} numbers, and no square map has so many of {widths[-1]} features")
    fields = {
        "stage_sizes": tuple(sizes), "widths": widths, "hidden": hidden,
        "num_classes": kernels["head"][0] if "head" in kernels else 0,
    }  # fmt: skip
    return Structure(layout, fields, kernels["stage1/conv1"][1], side * 2 ** len(sizes))


def _detector_fields(kernels: Mapping[str, tuple[int, ...]], finest_stage: int) -> dict[str, Any]:
    """Returns the fields of a detector on a pyramid; the background is no class."""
    parts = ("fpn/lateral{i}", "rpn/conv", "rpn/objectness", "region_head/fc1", "head")
    if lacking := [part for part in parts if part not in kernels]:
        raise LookupError(f"there is no {lacking[0]}")
    ratios = len(FPNDetector.anchor_ratios)
    if kernels["rpn/objectness"][0] != ratios:
        raise LookupError(f"{kernels['rpn/objectness'][0]} anchors at a position, not {ratios}, are of no net here")
    features = kernels["fpn/lateral{i}"][0]
    head_features, inputs = kernels["region_head/fc1"][:2]
    return {
        "finest_stage": finest_stage, "fpn_features": features, "rpn_features": kernels["rpn/conv"][0],
        "head_features": head_features, "region_size": math.isqrt(inputs // features),
        "num_classes": kernels["head"][0] - 1,
    }  # fmt: skip


def _head_width(kernels: Mapping[str, tuple[int, ...]]) -> int | None:
    """Returns `ResNet.head_width`, None where it is torchvision's."""
    if "decoder/conv" in kernels:
        own = [kernels[name][:2] for name in ("decoder/conv", "aux/conv") if name in kernels]
        return None if all(features == inputs // 4 for features, inputs in own) else own[0][0]
    if "decoder/project_conv" not in kernels:
        raise LookupError("the head lacks its convolutions")
    features = kernels["decoder/project_conv"][0]
    return None if features == ASPP_WIDTH else features


def _stages(units: Mapping[tuple[int, int], dict[str, tuple[int, ...]]]) -> list[list[dict[str, tuple[int, ...]]]]:
    """Returns the units by stage, in order. Where only their place in the net is known, a wider one begins a stage."""
    if not units:
        raise LookupError("there are no units")
    stages: list[list[dict[str, tuple[int, ...]]]] = []
    if all(stage == 0 for stage, _ in units):
        _without_gaps([unit for _, unit in units], "units")
        width = 0
        for key in sorted(units):
            if _width([units[key]]) != width:
                stages.append([])
                width = _width([units[key]])
            stages[-1].append(units[key])
        return stages
    numbers = sorted({stage for stage, _ in units})
    _without_gaps(numbers, "stages")
    for number in numbers:
        members = [unit for stage, unit in units if stage == number]
        _without_gaps(members, f"units of stage {number}")
        stages.append([units[number, unit] for unit in sorted(members)])
    return stages


def _without_gaps(numbers: list[int], what: str) -> None:
    """Raises LookupError: a file of one name with a large number is not a net of so many layers."""
    if lacking := sorted(set(range(1, max(numbers) + 1)) - set(numbers)):
        raise LookupError(f"among the {what}, number {lacking[0]} is missing")


def _width(stage: list[dict[str, tuple[int, ...]]]) -> int:
    for parts in stage:
        if "conv3" in parts:  # a bottleneck ends in four times its width, however wide its 3x3 convolution is
            return parts["conv3"][0] // 4
        if "conv1" in parts:
            return parts["conv1"][0]
    raise LookupError("a stage has no first convolution")


def _groups(stage: list[dict[str, tuple[int, ...]]], width: int) -> tuple[int, int]:
    """Returns `groups` and `width_per_group` of bottlenecks of this width."""
    for parts in stage:
        if "conv2" in parts and width and parts["conv2"][1]:
            features, per_group = parts["conv2"][:2]
            return features // per_group, per_group * 64 // width
    raise LookupError("a stage has no second convolution")


def nearest_name(structure: Structure) -> str:
    """Returns the named net that agrees in most of `KEYS`, the first of which weigh more; a VGG in its layers."""
    fields, net = structure.fields, structure.layout.net
    if net is VGG:
        same = ("stage_sizes", fields["stage_sizes"])
        return next(name for name, one in VARIANTS.items() if one.net is VGG and same in one.fields.items())

    def agreement(name: str) -> int:
        own = _DEFAULTS | dict(VARIANTS[name].fields)
        # stem before sizes: a net of another size is named after one for the same images
        order = (*KEYS[:5], "stem", "stage_sizes", "widths", "shortcut", "stem_width")
        return sum(2 ** (len(order) - k) for k, key in enumerate(order) if own[key] == fields[key])

    nets = [name for name, variant in VARIANTS.items() if variant.net is net and variant.task != "segmentation"]
    # A net that segments may have no name with its head: then it is named after the net that has it instead of a
    # classifier.
    return max(_named(fields, net) or _named({**fields, "head": "classifier"}, net) or nets, key=agreement)


def _named(fields: Mapping[str, Any], net: type[ResNet] | type[VGG]) -> list[str]:
    """Returns the named nets of a class that agree in all of `MUST_AGREE`."""
    return [
        name for name, variant in VARIANTS.items()
        if variant.net is net and all((_DEFAULTS | dict(variant.fields))[key] == fields[key] for key in MUST_AGREE)
    ]  # fmt: skip


def agree(structure: Structure, model: str, what: str) -> None:
    """Checks that a file can be of a named net.

    Raises:
      UserError: naming what the file looks like, if it is of another.
    """
    variant, net = get_variant(model), structure.layout.net
    own, keys = _DEFAULTS | dict(variant.fields), ("stage_sizes",) if net is VGG else MUST_AGREE
    if variant.net is not net or any(own[key] != structure.fields[key] for key in keys):
        named = net is VGG or _named(structure.fields, net)
        right = f"--model={nearest_name(structure)}, or none" if named else "no --model"
        raise UserError(
            f"{what} is no {model}: by its names ({structure.layout.name}) and shapes it is {structure.describe()}; "
            f"give {right}"
        )


def _dashes(values: Any) -> str:
    return "-".join(map(str, values))
