"""Like units as one loop, so that a program's size and compile time do not grow with the depth."""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax import Array


def scan_units(stage: nn.Module, unit: nn.Module, names: Sequence[str], x: Array, train: bool) -> Array:
    """Applies units that differ in their variables alone, one after another, as `jax.lax.scan`.

    The variables stay where they are, each unit's under its own name: they are stacked inside the step, which costs a
    copy of them, and new batch statistics are parted again. XLA compiles one unit instead of hundreds.

    Args:
      stage: the bound module whose variables hold the units'.
      unit: such a unit, bound to nothing.
      names: of the units in `stage`, in order.
      x: input of the first, (batch, height, width, channels), which must also be the shape of every output.
      train: whether batch norm takes the batch's statistics, as in `ResNet`.
    """
    own = [{kind: tree[name] for kind, tree in stage.variables.items() if name in tree} for name in names]
    stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *own)
    mutable = [kind for kind in stacked if kind != "params" and stage.is_mutable_collection(kind)]

    def step(x: Array, variables: dict) -> tuple[Array, dict]:
        new: Any = unit.apply(variables, x, train, mutable=mutable)
        return new

    x, changed = jax.lax.scan(step, x, stacked)
    for kind, trees in changed.items():
        for i, name in enumerate(names):
            stage.put_variable(kind, name, jax.tree.map(lambda leaf, i=i: leaf[i], trees))
    return x


def unrolled(model: nn.Module) -> nn.Module:
    """The same net with every module by itself, to look into it: no loops, no layers folded into one.

    Modules inside a loop have no path, and a convolution that is folded into its batch norm has no output.
    """
    together: dict[str, Any] = {field: False for field in ("scan", "fold_norm") if getattr(model, field, False)}
    return model.clone(**together) if together else model
