"""Writes our weights in the names of the PyTorch code that has the same net, as safetensors."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.numpy

from resnet_jax.atomic_write import write_file
from resnet_jax.errors import UserError
from resnet_jax.interop.convert import tensors_of
from resnet_jax.interop.layouts import COUNTER, LAYOUTS, Layout
from resnet_jax.interop.weights import Weights
from resnet_jax.models.detection.fpn import FPNDetector
from resnet_jax.models.registry import FPN_FIELDS
from resnet_jax.models.resnet import ResNet
from resnet_jax.models.strides import total_stride
from resnet_jax.models.vgg import VGG

_BY_NAME = {layout.name: layout for layout in LAYOUTS}

#: Names of the layouts that PyTorch's code can have.
TORCH_LAYOUTS = tuple(layout.name for layout in LAYOUTS if not layout.flax)


def natural_layout(weights: Weights) -> str:
    """Returns the layout of the PyTorch code that has a net: torchvision's for ImageNet, akamaster's for CIFAR."""
    net: Any = weights.create_model()
    if isinstance(net, VGG):
        return "torchvision_vgg19" if sum(net.stage_sizes) > 13 else "torchvision_vgg16"
    if net.task == "segmentation":
        return f"torchvision_{net.head}"
    if isinstance(net, FPNDetector):
        return "torchvision_faster_rcnn_fpn"
    if getattr(net, "activation", "original") != "original":
        return "timm_resnetv2"
    return "torchvision" if getattr(net, "stem", "imagenet") == "imagenet" else "akamaster"


def state_dict(weights: Weights, layout: str) -> dict[str, np.ndarray]:
    """Returns all that `load_state_dict(..., strict=True)` wants: the net's variables, a counter for each batch norm.

    Raises:
      UserError: if that project has no such net.
    """
    chosen = _BY_NAME[layout]
    _check_net(weights, chosen)
    tensors = tensors_of(weights, chosen)
    counters = {
        name.removesuffix("running_mean") + COUNTER: np.zeros((), np.int64)
        for name in tensors
        if name.endswith("running_mean")
    }
    return tensors | counters


def export_safetensors(weights: Weights, out: str | Path, layout: str | None = None) -> Mapping[str, Any]:
    """Writes safetensors that PyTorch code loads.

    Args:
      weights: what to write.
      out: the file.
      layout: one of `TORCH_LAYOUTS`; unset: `natural_layout`.

    Returns:
      Facts: `layout`, `tensors`, and `notes` on how the project's own net differs.

    Raises:
      UserError: if that project has no such net, or the file cannot be written.
    """
    layout = layout or natural_layout(weights)
    tensors = state_dict(weights, layout)
    # transformers refuses a file that does not say so.
    write_file(out, safetensors.numpy.save(tensors, metadata={"format": "pt"}))
    return {"layout": layout, "tensors": len(tensors), "notes": _notes(weights, _BY_NAME[layout])}


def _check_net(weights: Weights, layout: Layout) -> None:
    net: Any = weights.create_model()
    if net.task == "detection" and type(net) is not layout.net:
        raise UserError(f"{layout.projects} has no net like {weights.model}; --format=stablehlo writes it as a program")
    if isinstance(net, VGG) and tuple(net.stage_sizes) != layout.fields.get("stage_sizes"):
        raise UserError(f"{layout.projects} has no net of {'-'.join(map(str, net.stage_sizes))} convolutions")

    def differs(field: str, own: Any) -> bool:
        return bool(getattr(net, field, own) != layout.fields.get(field, own))

    # The last two scale sums in testing, and have no tensors that could say so.
    for field, other in (
        ("activation", differs("activation", "original")),
        ("stem_norm", differs("stem_norm", True)),
        ("shortcut", getattr(net, "shortcut", None) in ("constant_scaling", "dropout")),
        ("stochastic_depth", getattr(net, "stochastic_depth", 0) and net.stochastic_depth_per == "batch"),
    ):
        if other:
            raise UserError(
                f"{layout.projects} has no net with {field}={getattr(net, field)}, as {weights.model} has here: in its "
                "names the weights would compute something else; --format=stablehlo writes them as a program"
            )
    if getattr(net, "padding", "symmetric") != layout.fields.get("padding", "symmetric"):
        raise UserError(f"{layout.projects} pads otherwise than this net, with padding={net.padding}")


def _normalization(weights: Weights) -> str:
    """Returns a sentence on how images are to be normalised, which no tensor of the file tells."""

    def said(values: np.ndarray) -> str:
        # One for each channel, or a mean image.
        return ", ".join(f"{v:.4g}" for v in values) if values.ndim == 1 else f"an image of mean {values.mean():.4g}"

    return (
        f"the code that loads this must normalise images with values in [0, 1]: less {said(weights.mean)}, then "
        f"divided by {said(weights.std)}"
    )


def _notes(weights: Weights, layout: Layout) -> tuple[str, ...]:
    net: Any = weights.create_model()
    notes = [_normalization(weights)]
    if not isinstance(net, ResNet):
        return tuple(notes)
    if isinstance(net, FPNDetector):
        rest = {name: getattr(net, name) for name, value in FPN_FIELDS.items() if getattr(net, name) != value}
        rest.pop("rpn_features", None)  # which the tensors tell
        rest.pop("region_size", None)
        said = ", ".join(f"{name}={value}" for name, value in rest.items())
        notes += [f"the code that loads this must be given what no tensor tells, and is {said} here"] if rest else []
    if net.norm_epsilon != 1e-5:
        notes.append(f"this net's batch norm adds {net.norm_epsilon:g} to variances: the code must be told so")
    if net.block == "bottleneck" and net.stride_on == "1x1":
        notes.append(f"this net strides in its 1x1 convolutions, and the nets of {layout.projects} in their 3x3")
    whole = total_stride(net.clone(output_stride=None))
    theirs = min(layout.fields.get("output_stride", whole), whole)
    if (stride := total_stride(net)) != theirs:
        notes.append(f"this net's last stage has a stride of {stride} pixels, and that of {layout.projects} one of "
                     f"{theirs}: the code that loads this must be told so")  # fmt: skip
    if net.shortcut in ("A", "none"):
        zeros = {"none": "", "sides": ", new channels half on each side", "end": ", new channels at the end"}
        where = zeros["none" if net.shortcut == "none" else net.shortcut_zeros]
        notes.append(
            f"there are no tensors of shortcuts: the code that loads this must have shortcut {net.shortcut}{where}"
        )
    return tuple(notes)
