"""Makes weights of other projects into ours: recognises them by their names, checks and carries them over."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import ml_dtypes
import numpy as np
from flax import traverse_util

from resnet_jax.errors import UserError, some, unknown_name
from resnet_jax.interop.files import TensorFile
from resnet_jax.interop.layouts import COUNTER, IMAGENET_MEAN, IMAGENET_STD, their_name, to_ours, to_theirs
from resnet_jax.interop.structure import Structure, agree, nearest_name, recognise
from resnet_jax.interop.weights import Weights, flatten_variables, unflatten_variables
from resnet_jax.models.field_checks import STRIDE_ON, ZEROS
from resnet_jax.models.layers import PADDINGS
from resnet_jax.models.registry import create_model, get_variant
from resnet_jax.models.resnet import ResNet
from resnet_jax.models.shortcuts import SHORTCUTS

#: Fields that neither names nor shapes tell, which a user can set, and their values.
UNTOLD: dict[str, Sequence[str]] = {
    "stride_on": STRIDE_ON, "shortcut": tuple(SHORTCUTS), "shortcut_zeros": ZEROS, "padding": PADDINGS,
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
            num_classes: int | None = None) -> Converted:  # fmt: skip
    """Makes a file's tensors into weights of one of our nets.

    Args:
      file: see `files.read_tensors`.
      model: the net's name; unset: that of its names and shapes.
      fields: of `UNTOLD`, where the layout's own are not those of this file.
      num_classes: outputs that the file must have.

    Raises:
      UserError: for names of no known layout, another net than asked for, and tensors that are missing, of another
        shape, or too many: all of them in one error.
    """
    what = str(file.path)
    shapes = {name: tuple(array.shape) for name, array in file.tensors.items() if not name.endswith(COUNTER)}
    structure = recognise(shapes, what)
    if model is not None:
        agree(structure, model, what)
    outputs = structure.fields["num_classes"]
    if num_classes is not None and outputs != num_classes:
        raise UserError(f"{what} has {outputs} classes, not the {num_classes} that were asked for")
    name = model or nearest_name(structure.fields)
    chosen, notes = _fields(structure, name, file, fields or {})
    net = create_model(name, **chosen)
    assert isinstance(net, ResNet)
    ours = variable_shapes(net, structure.channels)
    flat, more = _carry_over(file, structure, net, ours, shapes)
    mean, std = (np.array(v, np.float32) for v in _statistics(structure))
    if structure.channels != 3:
        mean, std = np.zeros(structure.channels, np.float32), np.ones(structure.channels, np.float32)
    size = get_variant(name).image_size
    source: dict[str, Any] = {"file": file.path.name, "format": file.kind, "layout": structure.layout.name}
    if file.sha256:
        source["sha256"] = file.sha256
    weights = Weights(name, chosen, unflatten_variables(flat), size, mean, std, (), source)
    parameters = sum(array.size for name, array in flat.items() if name.startswith("params/"))
    return Converted(weights, structure, len(flat), parameters, (*file.notes, *notes, *more))


def _fields(structure: Structure, name: str, file: TensorFile,
            given: Mapping[str, str]) -> tuple[dict[str, Any], tuple[str, ...]]:  # fmt: skip
    """Returns the fields that differ from those of the name's own net, and sentences on what is assumed."""
    for field, value in given.items():
        if field not in UNTOLD:
            raise unknown_name("field that a file does not tell", field, UNTOLD)
        if value not in UNTOLD[field]:
            raise UserError(f"{field}={value} must be one of {', '.join(UNTOLD[field])}")
    variant = get_variant(name)
    own = {f.name: f.default for f in dataclasses.fields(ResNet)} | dict(variant.fields)
    fields, layout = dict(structure.fields), structure.layout
    notes: list[str] = []
    if fields["shortcut"] == "A" and own["shortcut"] in ("none", "A"):
        fields["shortcut"] = own["shortcut"]  # of these two neither has tensors: the name decides
    elif fields["shortcut"] == "A" and own["stem"] == "imagenet":
        fields["shortcut"] = own["shortcut"]  # what is missing is said below
    fields |= layout.fields
    if fields["stem"] == "cifar":
        fields.pop("output_stride", None)  # torchvision has no such net, and it has no stride of 8
    if fields["block"] == "bottleneck":
        in_first = file.config.get("downsample_in_bottleneck", False)
        fields["stride_on"] = given.get("stride_on", "1x1" if in_first else "3x3")
        if layout.name != "timm_resnetv2" and "stride_on" not in given:
            notes.append(f"bottlenecks stride in their {fields['stride_on']} convolution, as in {layout.projects}")
    if file.config.get("downsample_in_first_stage") or file.config.get("hidden_act", "relu") != "relu":
        raise UserError(f"{file.path}: config.json beside it has a stem or an activation that no net here has")
    fields |= given
    if fields["shortcut"] == "A":
        where = "half on each side" if fields.get("shortcut_zeros", "sides") == "sides" else "at the end"
        notes.append(f"shortcuts without tensors are option A, new channels {where}")
    chosen = {key: value for key, value in fields.items() if value != own[key] or key == "num_classes"}
    return chosen, tuple(notes)


def _statistics(structure: Structure) -> tuple[tuple[float, ...], tuple[float, ...]]:
    if structure.fields["stem"] == "cifar":
        return IMAGENET_MEAN, IMAGENET_STD  # the reference weights' for CIFAR, too
    return structure.layout.mean, structure.layout.std


def variable_shapes(net: ResNet, channels: int) -> dict[str, tuple[int, ...]]:
    """Returns the shapes of the net's variables by name; nothing is computed."""
    images = jax.ShapeDtypeStruct((1, 64, 64, channels), np.float32)
    variables = jax.eval_shape(lambda x: net.init(jax.random.key(0), x), images)
    return {name: array.shape for name, array in traverse_util.flatten_dict(dict(variables), sep="/").items()}


def expected_tensors(layout: Any, net: ResNet, ours: Mapping[str, tuple[int, ...]]) -> dict[str, tuple[str, tuple]]:
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
        expected[name] = (theirs, to_theirs(layout, name, probe).shape)
    return expected


def _carry_over(file: TensorFile, structure: Structure, net: ResNet, ours: Mapping[str, tuple[int, ...]],
                shapes: Mapping[str, tuple[int, ...]]) -> tuple[dict[str, np.ndarray], tuple[str, ...]]:  # fmt: skip
    expected = expected_tensors(structure.layout, net, ours)
    wanted = dict(expected.values())
    missing = sorted(wanted.keys() - shapes.keys())
    extra = sorted(shapes.keys() - wanted.keys())
    misshapen = [
        f"{name} {shapes[name]} instead of {wanted[name]}" for name in wanted
        if name in shapes and shapes[name] != wanted[name]
    ]  # fmt: skip
    if missing or extra or misshapen:
        parts = [
            f"{len(names)} {kind}: {some(names, MOST)}"
            for kind, names in (("missing", missing), ("too many", extra), ("of another shape", misshapen))
            if names
        ]
        raise UserError(
            f"{file.path} looks like {structure.describe()} in {structure.layout.name}'s names, but its tensors do not "
            f"fit: {'; '.join(parts)}"
        )
    flat: dict[str, np.ndarray] = {}
    changed: dict[str, int] = {}
    for name, (theirs, _) in expected.items():
        array = np.asarray(file.tensors[theirs])
        if array.dtype.kind not in "f" and array.dtype != ml_dtypes.bfloat16:
            raise UserError(f"{file.path}: tensor {theirs} is of type {array.dtype}, not of floating point")
        if array.dtype != np.float32:
            changed[str(array.dtype.newbyteorder("="))] = changed.get(str(array.dtype.newbyteorder("=")), 0) + 1
        flat[name] = np.ascontiguousarray(to_ours(structure.layout, name, array), np.float32)
        if not np.isfinite(flat[name]).all():
            raise UserError(f"{file.path}: tensor {theirs} has numbers that are not finite")
    notes = tuple(f"{count} tensors were {kind} and are float32 now" for kind, count in changed.items())
    return flat, notes


def tensors_of(weights: Weights, layout: Any) -> dict[str, np.ndarray]:
    """Returns a net's variables in a layout's names and axes, contiguous; see `export`.

    Raises:
      UserError: if the layout has no place for one.
    """
    net = weights.create_model()
    if not isinstance(net, ResNet):
        raise UserError(f"{weights.model} is no ResNet: no layout here has a place for it")
    flat = flatten_variables(weights.variables)
    expected = expected_tensors(layout, net, {name: array.shape for name, array in flat.items()})
    return {expected[name][0]: np.ascontiguousarray(to_theirs(layout, name, array)) for name, array in flat.items()}
