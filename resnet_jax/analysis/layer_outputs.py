"""Reaches into a forward pass, for gradients with respect to the outputs of layers."""

import contextlib
from collections.abc import Collection, Iterator, Mapping
from typing import Any

from flax import linen as nn
from jax import Array


@contextlib.contextmanager
def shifted_outputs(paths: Collection[str], offsets: Mapping[str, Array]) -> Iterator[dict[str, Array]]:
    """Adds offsets to the outputs of layers in the forward passes under it.

    The gradient with respect to zeros added to an output is that with respect to the output.

    Args:
      paths: of layers, `stage1/block1/conv1`.
      offsets: by path; layers without one are left as they are.

    Yields:
      A dict that holds each layer's output before the offset, once a forward pass was made.
    """
    outputs: dict[str, Array] = {}

    def shift(next_call: Any, args: Any, kwargs: Any, context: Any) -> Any:
        output = next_call(*args, **kwargs)
        path = "/".join(context.module.path)
        if context.method_name != "__call__" or path not in paths:
            return output
        outputs[path] = output
        return output + offsets[path] if path in offsets else output

    with nn.intercept_methods(shift):
        yield outputs
