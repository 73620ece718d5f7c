"""A state in few arrays, and back."""

import jax
import jax.numpy as jnp
import numpy as np

from resnet_jax.training.distributed import make_mesh, replicated
from resnet_jax.training.packing import SMALL, layout, pack, packed_shapes, unpack

SHARDING = replicated(make_mesh(jax.devices()[:2]))


def tree():
    rng = np.random.default_rng(0)
    arrays = {
        "a": rng.normal(size=(3, 4)).astype(np.float32),
        "b": {"kernel": rng.normal(size=(SMALL,)).astype(np.float32), "on": np.bool_(True)},
        "c": np.int32(7),
        "d": np.zeros((0,), np.float32),
        "e": rng.normal(size=(5,)).astype(np.float32),
    }
    return jax.tree.map(jnp.asarray, arrays)


def test_there_and_back():
    packed = pack(tree())
    assert sorted(packed) == ["b.kernel", "small.bool", "small.float32", "small.int32"]
    shapes = {name: (x.shape, x.dtype) for name, x in packed_shapes(tree(), SHARDING).items()}
    assert shapes == {name: (x.shape, x.dtype) for name, x in packed.items()}
    back = unpack({name: jax.device_put(x, SHARDING) for name, x in packed.items()}, tree(), SHARDING)
    assert jax.tree.structure(back) == jax.tree.structure(tree())
    jax.tree.map(np.testing.assert_array_equal, back, tree())
    assert all(x.sharding == SHARDING for x in jax.tree.leaves(back))


def test_layout_tells_states_of_equal_size_apart():
    other = tree()
    other["a"], other["e"] = jnp.zeros((4, 3)), other["e"]
    renamed = {("z" if name == "e" else name): value for name, value in tree().items()}
    assert layout(tree()) == layout(jax.tree.map(lambda x: x + 0 if x.dtype != bool else x, tree()))
    assert len({layout(tree()), layout(other), layout(renamed)}) == 3
