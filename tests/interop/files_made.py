"""Files of other projects' weights, made here from what the table of layouts says a net has there."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from resnet_jax.interop.convert import expected_tensors, variable_shapes
from resnet_jax.interop.files import TensorFile
from resnet_jax.interop.layouts import COUNTER, LAYOUTS, Layout
from resnet_jax.models.registry import create_model
from tests.interop import made

BY_NAME: dict[str, Layout] = {layout.name: layout for layout in LAYOUTS}


def shapes_of(layout: str, model: str, channels: int = 3, **fields: Any) -> dict[str, tuple[int, ...]]:
    """Names and shapes that a net has in a layout, with PyTorch's counters."""
    net: Any = create_model(model, **fields)
    shapes = dict(expected_tensors(BY_NAME[layout], net, variable_shapes(net, channels)).values())
    counters = [name for name in shapes if name.endswith("running_mean")]
    return shapes | {name.replace("running_mean", COUNTER): () for name in counters}


def file_of(tensors: Mapping[str, np.ndarray]) -> TensorFile:
    """As if read."""
    return TensorFile(Path("made.safetensors"), "made", None, tensors, {})


def tensors_of(layout: str, model: str, **fields: Any) -> dict[str, np.ndarray]:
    """A state dict of `made`."""
    return made.state_dict(shapes_of(layout, model, **fields))
