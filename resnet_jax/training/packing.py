"""Packs the arrays of a state into few: a net has hundreds, and Orbax takes about a millisecond of CPU for each."""

import zlib
from typing import Any

import jax
import numpy as np
from jax.sharding import NamedSharding

from resnet_jax.data.placement import place

#: Arrays of fewer elements are packed; larger ones stay as they are, under their own names.
SMALL = 2**16


def layout(tree: Any) -> int:
    """Returns a number that differs for states whose arrays have other names, shapes or types."""
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return zlib.crc32("\n".join(f"{jax.tree_util.keystr(p)} {x.shape} {x.dtype}" for p, x in leaves).encode())


def pack(tree: Any) -> dict[str, Any]:
    """Returns the large arrays by their names, and the small ones of each type in one, "small.TYPE", on the host."""
    packed: dict[str, Any] = {}
    small: dict[str, list[np.ndarray]] = {}
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
        if leaf.size < SMALL:
            small.setdefault(f"small.{leaf.dtype}", []).append(np.ravel(np.asarray(leaf)))
        else:
            packed[_name(path)] = leaf
    return packed | {name: np.concatenate(parts) for name, parts in small.items()}


def packed_shapes(like: Any, sharding: NamedSharding) -> dict[str, jax.ShapeDtypeStruct]:
    """Returns the shapes of what `pack` gives of a state like this."""
    found: dict[str, jax.ShapeDtypeStruct] = {}
    for path, leaf in jax.tree_util.tree_leaves_with_path(like):
        name, shape = _name(path), leaf.shape
        if leaf.size < SMALL:
            name = f"small.{leaf.dtype}"
            shape = ((found[name].shape[0] if name in found else 0) + leaf.size,)
        found[name] = jax.ShapeDtypeStruct(shape, leaf.dtype, sharding=sharding)
    return found


def unpack(packed: dict[str, Any], like: Any, sharding: NamedSharding) -> Any:
    """Returns the packed state in the structure of `like`, with every array on the devices."""
    used: dict[str, int] = {}

    def take(path: Any, leaf: Any) -> Any:
        if leaf.size >= SMALL:
            return packed[_name(path)]
        name = f"small.{leaf.dtype}"
        start = used.get(name, 0)
        used[name] = start + leaf.size
        return place(np.asarray(packed[name])[start : start + leaf.size].reshape(leaf.shape), sharding)

    return jax.tree_util.tree_map_with_path(take, like)


def _name(path: Any) -> str:
    return jax.tree_util.keystr(path, simple=True, separator=".")
