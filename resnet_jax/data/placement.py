"""Host arrays on their way to the devices, of this process and of others."""

from typing import Any

import jax
import numpy as np
from jax.sharding import NamedSharding


def place(tree: Any, sharding: NamedSharding) -> Any:
    """Puts arrays on the devices.

    Args:
      tree: host arrays, whole and alike in every process. Each process sends what its own devices hold.
      sharding: of every array.
    """
    if jax.process_count() == 1:
        return jax.device_put(tree, sharding)

    def put(x: Any) -> jax.Array:
        array = np.asarray(x)
        # jax.device_put would first send the whole array around, to compare it.
        return jax.make_array_from_callback(array.shape, sharding, lambda index: array[index])

    return jax.tree.map(put, tree)
