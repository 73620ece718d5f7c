"""Keeps trained weights apart from the run that made them, in a folder of two files.

`weights.safetensors` holds every variable under its name in this project (`params/stage1/block1/conv1/kernel`,
`batch_stats/stage1/block1/bn1/mean`) and what images are normalised by; `weights.json` says of which net they are, and
what its outputs mean.
"""

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.numpy
from flax import linen as nn
from flax import traverse_util
from safetensors import SafetensorError

from resnet_jax.atomic_write import write_file
from resnet_jax.errors import UserError
from resnet_jax.models.registry import create_model

TENSORS, DESCRIPTION = "weights.safetensors", "weights.json"

#: Names of what images are normalised by, in the file of tensors.
MEAN, STD = "normalization/mean", "normalization/std"


@dataclasses.dataclass(frozen=True)
class Weights:
    """Holds a trained net.

    Attributes:
      model: its name, as `create_model` takes it.
      fields: fields of the net that differ from the name's own; `num_classes` is among them.
      variables: `{"params": ..., "batch_stats": ...}`, nested by layer, float32 NumPy arrays.
      image_size: side in pixels of the images that it was trained on.
      mean, std: of pixels in [0, 1], which images are normalised by: (channels,), or a mean image (height, width,
        channels).
      classes: names of the outputs; empty if nobody knows them.
      source: where the weights are from, as JSON holds it: a file's name and hash, a run's config hash and steps.
      shorter_side: of test images in pixels, ahead of the centre crop of `image_size`; 0: images are shown whole;
        None: nobody knows.
      resizing: how a detector's images are resized: "area" as in training here, or "torchvision"; see
        `data.detection.resizing`.
    """

    model: str
    fields: Mapping[str, Any]
    variables: Mapping[str, Any]
    image_size: int
    mean: np.ndarray
    std: np.ndarray
    classes: tuple[str, ...] = ()
    source: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    shorter_side: int | None = None
    resizing: str = "area"

    def create_model(self, **overrides: Any) -> nn.Module:
        """Returns the net, without its weights; see `registry.create_model`."""
        return create_model(self.model, **{**self.fields, **overrides})

    @property
    def num_classes(self) -> int:
        """Returns the number of classes that the net names; 0 without a classifier."""
        return classes_of_head(self.variables["params"])

    @property
    def channels(self) -> int:
        """Returns the channels of the images: 3, or 1 for grey ones."""
        return self.mean.shape[-1]


def classes_of_head(params: Mapping[str, Any]) -> int:
    """Returns how many classes a net's parameters tell apart; 0 without a classifier.

    A detector's first output is the background.
    """
    outputs = params["head"]["bias"].shape[0] if "head" in params else 0
    return outputs - 1 if "head_boxes" in params else outputs


def flatten_variables(variables: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """Returns the variables by their names, `{"params/stem/conv/kernel": ...}`, sorted."""
    flat = traverse_util.flatten_dict(dict(variables), sep="/")
    return {name: np.asarray(flat[name]) for name in sorted(flat)}


def unflatten_variables(flat: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """Returns what `flatten_variables` was made of; collections that it lacks are there, empty."""
    return {"params": {}, "batch_stats": {}} | traverse_util.unflatten_dict(dict(flat), sep="/")


def save_weights(weights: Weights, folder: str | Path) -> Path:
    """Writes a folder of weights; see the module.

    Returns:
      The folder.

    Raises:
      UserError: if it cannot be written.
    """
    folder = Path(folder).expanduser()
    tensors = flatten_variables(weights.variables) | {MEAN: np.asarray(weights.mean), STD: np.asarray(weights.std)}
    description = {
        "model": weights.model,
        "fields": dict(weights.fields),
        "image_size": weights.image_size,
        "classes": list(weights.classes),
        "source": dict(weights.source),
    } | ({} if weights.shorter_side is None else {"shorter_side": weights.shorter_side})
    if weights.resizing != "area":
        description["resizing"] = weights.resizing
    contiguous = {name: np.ascontiguousarray(array) for name, array in tensors.items()}
    write_file(folder / TENSORS, safetensors.numpy.save(contiguous))
    write_file(folder / DESCRIPTION, json.dumps(description, indent=2) + "\n")
    return folder


def is_weights_folder(path: str | Path) -> bool:
    """Returns whether there is a folder of weights at this path."""
    return (Path(path).expanduser() / DESCRIPTION).is_file()


def read_weights(folder: str | Path) -> Weights:
    """Reads what `save_weights` wrote.

    Raises:
      UserError: if it is not there or damaged.
    """
    folder = Path(folder).expanduser()
    if not is_weights_folder(folder):
        raise UserError(f"{folder} holds no weights: there is no {DESCRIPTION}")
    try:
        description = json.loads((folder / DESCRIPTION).read_text())
        tensors = safetensors.numpy.load_file(folder / TENSORS)
        mean, std = tensors.pop(MEAN), tensors.pop(STD)
        fields = {k: tuple(v) if isinstance(v, list) else v for k, v in description["fields"].items()}
        return Weights(
            description["model"], fields, unflatten_variables(tensors), description["image_size"], mean, std,
            tuple(description["classes"]), description["source"], description.get("shorter_side"),
            description.get("resizing", "area"),
        )  # fmt: skip
    except (OSError, SafetensorError, ValueError, TypeError, AttributeError, KeyError) as error:
        raise UserError(f"the weights in {folder} are damaged: {type(error).__name__}: {error}") from error
