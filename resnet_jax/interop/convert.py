"""Makes weights of other projects into ours: recognises them by their names, checks and carries them over."""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import ml_dtypes
import numpy as np
from flax import traverse_util

from resnet_jax.errors import UserError, some, unknown_name
from resnet_jax.interop.architectures import (
    CAFFE,
    NO_EPSILON,
    TENSORFLOW,
    TIMM_OPTIONS,
    named_by_tensors,
    pools_before_strides,
)
from resnet_jax.interop.facts import is_timm
from resnet_jax.interop.files import TensorFile
from resnet_jax.interop.find_net import FoundNet, find_net
from resnet_jax.interop.layouts import IMAGENET_MEAN, IMAGENET_STD, their_name, to_ours, to_theirs
from resnet_jax.interop.structure import Structure, agree, nearest_name
from resnet_jax.interop.weights import Weights, flatten_variables, unflatten_variables
from resnet_jax.models.field_checks import STRIDE_ON, ZEROS
from resnet_jax.models.layers import PADDINGS
from resnet_jax.models.registry import create_model, get_variant
from resnet_jax.models.resnet import ResNet
from resnet_jax.models.shortcuts import SHORTCUTS
from resnet_jax.models.vgg import VGG

#: Fields that neither names nor shapes tell, which a user can set, and their values.
UNTOLD: dict[str, Sequence[str]] = {
    "stride_on": STRIDE_ON, "shortcut": tuple(SHORTCUTS), "shortcut_zeros": ZEROS, "padding": PADDINGS,
    "norm_epsilon": ("0", "1e-5"),
}  # fmt: skip

#: How many names of each kind an error has.
MOST = 8


@dataclasses.dataclass(frozen=True)
class Converted:
    """Weights, and what was recognised in their file.

    Attributes:
      weights: in our names.
      structure: the file's layout and net.
      tensors: tensors that were carried over.
      parameters: numbers that training changes among them.
      notes: sentences on what was chosen, assumed or changed.
    """

    weights: Weights
    structure: Structure
    tensors: int
    parameters: int
    notes: tuple[str, ...]


def convert(file: TensorFile, model: str | None = None, *, fields: Mapping[str, str] | None = None,
            num_classes: int | None = None, key: str | None = None) -> Converted:  # fmt: skip
    """Makes a file's tensors into weights of one of our nets.

    Args:
      file: see `files.read_tensors`.
      model: the net's name; unset: that of its names and shapes.
      fields: of `UNTOLD`, where the layout's own are not those of this file.
      num_classes: outputs that the file must have.
      key: which net, if the file holds several; see `find_net.find_net`.

    Raises:
      UserError: for names of no known layout, another net than asked for, and tensors that are missing, of another
        shape, or too many: all of them in one error. Also for images of other channels than 1 and 3, and for nets that
        a config or the file's name says are computed otherwise.
    """
    what = str(file.path)
    _check_computed(file)
    try:
        found = find_net({name: tuple(array.shape) for name, array in file.tensors.items()}, what, key)
    except UserError as error:
        raise UserError(f"{error}{_unread_tensors(file)}") from error
    structure = found.structure
    if model is not None:
        agree(structure, model, what)
    if structure.channels not in (1, 3):
        raise UserError(f"{what} takes images of {structure.channels} channels, and images here have 1 or 3")
    outputs = structure.fields["num_classes"]
    if num_classes is not None and outputs != num_classes:
        has = f"{outputs} classes" if outputs else "no classifier"
        raise UserError(f"{what} has {has}, not the {num_classes} classes that were asked for")
    name = model or nearest_name(structure)
    chosen, notes = _fields(structure, name, file, fields or {})
    net = create_model(name, **chosen)
    assert isinstance(net, ResNet | VGG)
    ours = variable_shapes(net, structure.channels, structure.image_size or 64)
    flat, more = _carry_over(file, found, net, ours)
    mean, std = (np.array(v, np.float32) for v in _statistics(structure))
    if structure.channels != 3:
        mean, std = np.zeros(structure.channels, np.float32), np.ones(structure.channels, np.float32)
    size = structure.image_size or get_variant(name).image_size
    source: dict[str, Any] = {"file": file.path.name, "format": file.kind, "layout": structure.layout.name}
    if file.sha256:
        source["sha256"] = file.sha256
    weights = Weights(
        name, chosen, unflatten_variables(flat), size, mean, std, (), source, resizing=structure.layout.resizing
    )
    parameters = sum(array.size for name, array in flat.items() if name.startswith("params/"))
    return Converted(weights, structure, len(flat), parameters, (*file.notes, *found.notes, *notes, *more))


def _check_computed(file: TensorFile) -> None:
    """Raises UserError for nets with a plain ResNet's tensors that compute something else, by what is said of them."""
    config = file.config
    if is_timm(config):
        named, where = str(config["architecture"]), "config.json beside it"
        options = config.get("model_args")
        options = options if isinstance(options, dict) else {}
        for option in TIMM_OPTIONS:
            if options.get(option):
                raise UserError(f"{file.path}: {where} has {option}={str(options[option])[:40]}, which no net here has")
    else:
        named, where = file.path.name, "its name"
    if pools_before_strides(named):
        raise UserError(f"{file.path} is {named} by {where}: that net pools ahead of its strides, and none here does")
    if config.get("downsample_in_first_stage") or config.get("hidden_act", "relu") != "relu":
        raise UserError(f"{file.path}: config.json beside it has a stem or an activation that no net here has")


def _fields(structure: Structure, name: str, file: TensorFile,
            given: Mapping[str, str]) -> tuple[dict[str, Any], tuple[str, ...]]:  # fmt: skip
    """Returns the fields that differ from those of the name's own net, and sentences on what is assumed."""
    for field, value in given.items():
        if field not in UNTOLD:
            raise unknown_name("field that a file does not tell", field, UNTOLD)
        if value not in UNTOLD[field]:
            raise UserError(f"{field}={value} must be one of {', '.join(UNTOLD[field])}")
    variant, layout = get_variant(name), structure.layout
    own = {f.name: f.default for f in dataclasses.fields(variant.net)} | dict(variant.fields)
    fields = dict(structure.fields)
    if layout.net is VGG:
        fields |= given
        return {key: value for key, value in fields.items() if key == "num_classes" or value != own.get(key)}, ()
    notes: list[str] = []
    if not file.config:
        what = "a stride of 1 and no max-pool behind a 3x3 stem" if fields["stem"] == "cifar" else "strides and pools"
        notes.append(f"no file says {what}: taken as in {layout.projects}")
    if fields["shortcut"] == "A" and own["shortcut"] in ("none", "A"):
        fields["shortcut"] = own["shortcut"]  # of these two neither has tensors: the name decides
    elif fields["shortcut"] == "A" and own["stem"] == "imagenet":
        fields["shortcut"] = own["shortcut"]  # what is missing is said below
    fields |= layout.fields
    if fields["stem"] == "cifar":
        fields.pop("output_stride", None)  # torchvision has no such net, and it has no stride of 8
    if fields["block"] == "bottleneck":
        caffe = bool(CAFFE.search(file.path.name))
        in_first = file.config.get("downsample_in_bottleneck", caffe)
        fields["stride_on"] = given.get("stride_on", "1x1" if in_first else "3x3")
        if caffe and in_first and "stride_on" not in given:
            notes.append("its name is of Caffe's nets, which stride in 1x1 convolutions and mostly take BGR, not RGB")
        elif layout.name != "timm_resnetv2" and "stride_on" not in given:
            notes.append(f"bottlenecks stride in their {fields['stride_on']} convolution, as in {layout.projects}")
    if TENSORFLOW.search(file.path.name) and "padding" not in given and "padding" not in layout.fields:
        notes.append("its name is of TensorFlow: --fields=padding=same, if its convolutions pad as TensorFlow's do")
    fields |= {field: float(value) if field == "norm_epsilon" else value for field, value in given.items()}
    if variant.net is not ResNet and "norm_epsilon" not in given:
        if NO_EPSILON.search(file.path.name):
            fields["norm_epsilon"] = 0.0
            notes.append("its name is of torchvision's published detectors, whose batch norm adds 0 to variances")
        else:
            notes.append("batch norm is taken to add 1e-5 to variances: --fields=norm_epsilon=0 for files that descend "
                         "from torchvision's published detectors")  # fmt: skip
    if fields["shortcut"] == "A":
        where = "half on each side" if fields.get("shortcut_zeros", "sides") == "sides" else "at the end"
        notes.append(f"shortcuts without tensors are option A, new channels {where}")
    chosen = {key: value for key, value in fields.items() if value != own[key] or key == "num_classes"}
    return chosen, tuple(notes)


def _statistics(structure: Structure) -> tuple[tuple[float, ...], tuple[float, ...]]:
    if structure.fields.get("stem") == "cifar":
        return IMAGENET_MEAN, IMAGENET_STD  # the reference weights' for CIFAR, too
    return structure.layout.mean, structure.layout.std


def variable_shapes(net: ResNet | VGG, channels: int, side: int = 64) -> dict[str, tuple[int, ...]]:
    """Returns the shapes of the net's variables by name, for images of a side in pixels; nothing is computed."""
    images = jax.ShapeDtypeStruct((1, side, side, channels), np.float32)
    variables = jax.eval_shape(lambda x: net.init(jax.random.key(0), x), images)
    return {name: array.shape for name, array in traverse_util.flatten_dict(dict(variables), sep="/").items()}


def expected_tensors(
    layout: Any, net: ResNet | VGG, ours: Mapping[str, tuple[int, ...]]
) -> dict[str, tuple[str, tuple]]:
    """Returns the name and shape in a layout of each of our variables.

    Raises:
      UserError: if the layout has no place for one.
    """
    expected = {}
    for name, shape in ours.items():
        theirs = their_name(layout, name, net.stage_sizes)
        if theirs is None:
            raise UserError(f"{layout.projects} has no net with {name}; the layout {layout.name} cannot hold it")
        # An array of nothing but its shape: strides of zero.
        probe = np.broadcast_to(np.zeros((), np.float32), shape)
        expected[name] = (theirs, to_theirs(layout, name, probe, _flattened(net, name)).shape)
    return expected


def _flattened(net: ResNet | VGG, name: str) -> int:
    """Returns the channels of the feature map that a variable's layer takes flattened; 0 if it takes none."""
    return net.widths[-1] if name == "params/fc1/kernel" else 0


def _carry_over(file: TensorFile, found: FoundNet, net: ResNet | VGG, ours: Mapping[str, tuple[int, ...]]
                ) -> tuple[dict[str, np.ndarray], tuple[str, ...]]:  # fmt: skip
    structure, names = found.structure, found.names
    expected = expected_tensors(structure.layout, net, ours)
    wanted = dict(expected.values())
    notes: list[str] = []
    bias = expected.get("params/head/bias", ("", ()))[0]
    if bias and bias not in names:
        wanted.pop(bias)
        notes.append("the classifier has no bias: it is zero here")
    shapes = {name: tuple(file.tensors[own].shape) for name, own in names.items()}
    head = expected.get("params/head/kernel", ("", ()))[0]
    if head and len(shapes[head]) != len(wanted[head]) and math.prod(shapes[head]) == math.prod(wanted[head]):
        shapes[head] = wanted[head]  # a 1x1 convolution in the place of a linear layer, or the other way round
    missing = sorted(wanted.keys() - shapes.keys())
    extra = sorted({*found.extra, *(shapes.keys() - wanted.keys())} - {bias})
    misshapen = [
        f"{name} {shapes[name]} instead of {wanted[name]}" for name in wanted
        if name in shapes and shapes[name] != wanted[name]
    ]  # fmt: skip
    if missing or extra or misshapen:
        raise UserError(
            f"{file.path} looks like {structure.describe()} in {structure.layout.name}'s names, but its tensors do not "
            f"fit: {_misfit(file, missing, extra, misshapen, structure.layout.net is ResNet)}"
        )
    _check_claims(file, shapes)
    flat: dict[str, np.ndarray] = {}
    changed: dict[str, int] = {}
    for name, (theirs, shape) in expected.items():
        if theirs not in names:
            flat[name] = np.zeros(ours[name], np.float32)
            continue
        array = np.asarray(file.tensors[names[theirs]])
        if array.dtype.kind not in "f" and array.dtype != ml_dtypes.bfloat16:
            raise UserError(f"{file.path}: tensor {theirs} is of type {array.dtype}, not of floating point")
        if array.dtype != np.float32:
            changed[str(array.dtype.newbyteorder("="))] = changed.get(str(array.dtype.newbyteorder("=")), 0) + 1
        array = to_ours(structure.layout, name, array.reshape(shape), ours[name], _flattened(net, name))
        flat[name] = np.ascontiguousarray(array, np.float32)
        if not np.isfinite(flat[name]).all():
            raise UserError(f"{file.path}: tensor {theirs} has numbers that are not finite")
    notes += (f"{count} tensors were {kind} and are float32 now" for kind, count in changed.items())
    return flat, tuple(notes)


def _misfit(file: TensorFile, missing: Sequence[str], extra: Sequence[str], misshapen: Sequence[str], normed: bool
            ) -> str:  # fmt: skip
    """Returns what does not fit, in words, and which other net that may be."""
    parts = [
        f"{len(names)} {kind}: {some(names, MOST)}"
        for kind, names in (("missing", missing), ("too many", extra), ("of another shape", misshapen))
        if names
    ]
    unread = _unread_tensors(file) if missing else ""
    if normed and not any(name.endswith("running_mean") for name in file.tensors) and missing and not unread:
        parts.append("there are no statistics of batch norm, as in nets with group norm")
    return "; ".join(parts) + unread + named_by_tensors([*extra, *misshapen])


def _unread_tensors(file: TensorFile) -> str:
    """Returns what to add to an error: which of the file's objects are tensors of a kind that is not read."""
    kinds = sorted({kind for kind in file.unread.values() if "rebuild" in kind or "ensor" in kind})
    return f"; tensors of {some(kinds, 3)} (quantised, sparse or sharded ones) are not read" if kinds else ""


def _check_claims(file: TensorFile, shapes: Mapping[str, tuple[int, ...]]) -> None:
    """Raises UserError if all tensors together have more numbers than the file has room for, as views of one block."""
    if file.sha256 is not None and file.path.is_file() and not file.kind.endswith("files"):
        numbers, room = sum(math.prod(shape) for shape in shapes.values()), file.path.stat().st_size
        if numbers > room:  # a number takes 2 bytes at least
            raise UserError(f"{file.path} has {numbers:,} numbers in its tensors and no more than {room:,} bytes")


def tensors_of(weights: Weights, layout: Any) -> dict[str, np.ndarray]:
    """Returns a net's variables in a layout's names and axes, contiguous; see `export`.

    Raises:
      UserError: if the layout has no place for one.
    """
    net = weights.create_model()
    assert isinstance(net, ResNet | VGG), weights.model
    flat = flatten_variables(weights.variables)
    expected = expected_tensors(layout, net, {name: array.shape for name, array in flat.items()})
    return {
        expected[name][0]: np.ascontiguousarray(to_theirs(layout, name, array, _flattened(net, name)))
        for name, array in flat.items()
    }
