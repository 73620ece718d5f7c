"""One table of named nets: a name stands for a class and its fields."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from flax import linen as nn

from resnet_jax.errors import UserError, unknown_name
from resnet_jax.models.detection.faster_rcnn import FasterRCNN
from resnet_jax.models.detection.fpn import FPNDetector
from resnet_jax.models.detection.vgg import VGGDetector
from resnet_jax.models.resnet import ResNet
from resnet_jax.models.vgg import VGG


@dataclasses.dataclass(frozen=True)
class Variant:
    """A named net.

    Attributes:
      net: class of the net.
      fields: its fields, where they differ from the class's defaults.
      image_size: side in pixels of the images that the net was published for.
      source: paper and place that define it.
    """

    net: type[ResNet] | type[VGG]
    fields: Mapping[str, Any]
    image_size: int
    source: str

    @property
    def task(self) -> str:
        """Returns what the net is for: "classification", "segmentation" or "detection"."""
        return self.net(**self.fields).task


# Units per stage of the ImageNet nets: 2015 table 1; ResNet-200: 2016, footnote of section 5.
_BASIC = {18: (2, 2, 2, 2), 34: (3, 4, 6, 3)}
_BOTTLENECK = {50: (3, 4, 6, 3), 101: (3, 4, 23, 3), 152: (3, 8, 36, 3), 200: (3, 24, 36, 3)}
_VGG = {16: (2, 2, 3, 3, 3), 19: (2, 2, 4, 4, 4)}


def _imagenet(depth: int, **fields: Any) -> Variant:
    """Returns an ImageNet net of 2015 table 1, one with pre-activation of 2016, or a ResNet-200 of 2016."""
    block = "basic" if depth in _BASIC else "bottleneck"
    sizes = (_BASIC | _BOTTLENECK)[depth]
    preact = fields.get("activation") == "full_preactivation"
    source = "2015 table 1"
    if preact or depth == 200:  # table 5 has no other depths
        source = "2016 table 5" if depth in (152, 200) else "2016 figure 4"
    base: dict[str, Any] = {"block": block, "stage_sizes": sizes, "widths": (64, 128, 256, 512), "shortcut": "B"}
    return Variant(ResNet, base | fields, 224, source)


def _cifar(depth: int, source: str = "2015 table 6", block: str = "basic", **fields: Any) -> Variant:
    """A CIFAR net: depth 6n+2 for basic units (2015, section 4.2), 9n+2 for bottlenecks, 3n+2 for single layers."""
    layers_per_unit = {"basic": 2, "bottleneck": 3, "single": 1}[block]
    n, rest = divmod(depth - 2, 3 * layers_per_unit)
    assert rest == 0, depth
    # Basic units keep option A. The authors' code of 2016 for bottlenecks projects where dimensions change.
    base: dict[str, Any] = {
        "block": block, "stem": "cifar", "stage_sizes": (n, n, n), "widths": (16, 32, 64), "num_classes": 10,
        "shortcut": "B" if block == "bottleneck" else "A",
    }  # fmt: skip
    return Variant(ResNet, base | fields, 32, source)


def _vgg(depth: int) -> Variant:
    fields = {"stage_sizes": _VGG[depth], "widths": (64, 128, 256, 512, 512)}
    return Variant(VGG, fields, 224, "Simonyan and Zisserman 2014, table 1")


def _segmentation(head: str, depth: int) -> Variant:
    """Returns torchvision's net for the 21 classes of PASCAL VOC, with its auxiliary head."""
    fields = {"head": head, "output_stride": 8, "aux_head": True, "stride_on": "3x3", "num_classes": 21}
    source = {"fcn": "Long et al. 2015, section 4", "deeplabv3": "Chen et al. 2017, section 3"}[head]
    return Variant(ResNet, {**_imagenet(depth).fields, **fields}, 520, source)


def _faster_rcnn(base: Variant, image_size: int, source: str, **fields: Any) -> Variant:
    """Returns a detector whose first stages see the image and whose last one sees regions."""
    return Variant(FasterRCNN, {**base.fields, **fields}, image_size, source)


#: torchvision's values, Detectron's; `anchor_sizes` has one for each level.
FPN_FIELDS: dict[str, Any] = {
    "anchor_sizes": (32, 64, 128, 256, 512), "anchor_grid": "torchvision", "inside_anchors": False,
    "rpn_features": 256, "train_proposals": (2000, 2000), "test_proposals": (1000, 1000), "smallest_proposal": 1e-3,
    "regions": 512, "region_beta": 1 / 9, "region_pool": "align_v1", "region_size": 7, "nms_threshold": 0.5,
}  # fmt: skip


def _faster_rcnn_fpn(base: Variant, image_size: int, **fields: Any) -> Variant:
    """Returns a detector on a pyramid of features, as torchvision's fasterrcnn_resnet50_fpn."""
    stride = {"stride_on": "3x3"} if base.fields["block"] == "bottleneck" else {}
    return Variant(
        FPNDetector, {**base.fields, **stride, **FPN_FIELDS, **fields}, image_size, "Lin et al. 2017, section 5.2"
    )


#: For objects of 10 to 60 pixels, on the features of a CIFAR net's second stage, whose stride is 2.
_SMALL_OBJECTS = {
    "anchor_sizes": (16, 32, 64), "rpn_stride": 4, "rpn_features": 64, "train_proposals": (1000, 200),
    "test_proposals": (1000, 100), "smallest_proposal": 2.0,
}  # fmt: skip

#: The same on a pyramid: levels of stride 2 and 4, and of 8 to propose alone.
_SMALL_PYRAMID = {
    "finest_stage": 2, "fpn_features": 64, "head_features": 128, "anchor_sizes": (16, 32, 64), "rpn_features": 64,
    "train_proposals": (500, 200), "test_proposals": (500, 100), "regions": 128,
}  # fmt: skip

_PREACT = {"activation": "full_preactivation"}

VARIANTS: dict[str, Variant] = {
    # ImageNet. A plain net has exactly the parameters of its residual twin with option A.
    **{f"resnet{d}": _imagenet(d) for d in (18, 34, 50, 101, 152, 200)},
    **{f"plain{d}": _imagenet(d, shortcut="none") for d in (18, 34)},
    "resnet18_A": _imagenet(18, shortcut="A"),
    **{f"resnet34_{option}": _imagenet(34, shortcut=option) for option in "ABC"},
    **{f"preact_resnet{d}": _imagenet(d, **_PREACT) for d in (18, 34, 50, 101, 152, 200)},
    # Wider bottlenecks, as torchvision has them: the 3x3 convolution strides.
    **{
        name: dataclasses.replace(_imagenet(depth, stride_on="3x3", **fields), source=source)
        for name, depth, source, fields in (
            ("resnext50_32x4d", 50, "Xie et al. 2017, table 1", {"groups": 32, "width_per_group": 4}),
            ("resnext101_32x8d", 101, "Xie et al. 2017", {"groups": 32, "width_per_group": 8}),
            ("wide_resnet50_2", 50, "Zagoruyko and Komodakis 2016, table 8", {"width_per_group": 128}),
            ("wide_resnet101_2", 101, "Zagoruyko and Komodakis 2016", {"width_per_group": 128}),
        )
    },
    # CIFAR, and every other set of small images.
    **{f"cifar_resnet{d}": _cifar(d) for d in (20, 32, 44, 56, 110, 1202)},
    **{f"cifar_plain{d}": _cifar(d, shortcut="none") for d in (20, 32, 44, 56, 110)},
    "cifar_resnet110_1layer": _cifar(110, "2016 table 3", "single"),
    **{f"cifar_resnet{d}": _cifar(d, "2016 table 3", "bottleneck") for d in (164, 1001)},
    "cifar_preact_resnet110": _cifar(110, "2016 table 2", **_PREACT),
    "cifar_preact_resnet110_1layer": _cifar(110, "2016 table 3", "single", **_PREACT),
    **{f"cifar_preact_resnet{d}": _cifar(d, "2016 table 3", "bottleneck", **_PREACT) for d in (164, 1001)},
    "cifar_wrn28_10": _cifar(
        26,
        "Zagoruyko and Komodakis 2016, table 1",
        stage_sizes=(4, 4, 4),
        widths=(160, 320, 640),
        stem_width=16,
        shortcut="B",
        **_PREACT,
    ),  # that paper calls 6n+4 what has 6n+2 weighted layers in sequence
    **{f"vgg{d}": _vgg(d) for d in _VGG},
    # Segmentation. Any other net has a head by its field: --config.model.head=fcn.
    **{f"{head}_resnet{d}": _segmentation(head, d) for head in ("fcn", "deeplabv3") for d in (50, 101)},
    # Detection.
    **{
        f"faster_rcnn_resnet{d}": _faster_rcnn(_imagenet(d), 600, "2015 appendix A", num_classes=20)
        for d in (18, 34, 50, 101)
    },
    "faster_rcnn_vgg16": Variant(
        VGGDetector, {**_vgg(16).fields, "num_classes": 20}, 600, "Ren et al. 2015; 2015 tables 7 and 8"
    ),
    **{
        f"faster_rcnn_cifar_resnet{d}": _faster_rcnn(_cifar(d), 128, "2015 appendix A, in small", **_SMALL_OBJECTS)
        for d in (20, 32, 56)
    },
    # 90 classes, as COCO's ids have gaps and torchvision's outputs have them, too.
    **{f"faster_rcnn_fpn_resnet{d}": _faster_rcnn_fpn(_imagenet(d), 800, num_classes=90) for d in (18, 34, 50, 101)},
    "faster_rcnn_fpn_cifar_resnet20": _faster_rcnn_fpn(_cifar(20), 128, **_SMALL_PYRAMID),
}


def list_models(task: str | None = None) -> list[str]:
    """Names of all nets, or of those for a task, in the order of the table."""
    return [name for name, variant in VARIANTS.items() if task in (None, variant.task)]


def get_variant(name: str) -> Variant:
    """The row of the table called `name`.

    Raises:
      UserError: if there is none, with the nearest names.
    """
    if name not in VARIANTS:
        if f"cifar_{name}" in VARIANTS:
            raise UserError(f"unknown net {name!r}; did you mean cifar_{name}?")
        raise unknown_name("net", name, VARIANTS)
    return VARIANTS[name]


def create_model(name: str, **overrides: Any) -> nn.Module:
    """The named net, with some of its fields overridden: `create_model("cifar_resnet20", shortcut="C")`.

    Raises:
      UserError: for an unknown name, a field that the net does not have, or a combination that makes no sense.
    """
    variant = get_variant(name)
    known = [f.name for f in dataclasses.fields(variant.net) if f.name not in ("parent", "name")]
    for field in overrides:
        if field not in known:
            raise UserError(f"{name} has no field {field!r}; its fields: {', '.join(known)}")
    return variant.net(**{**variant.fields, **overrides})
