"""Measures the most that the hardware can do: one large matrix product and one large copy."""

import dataclasses
import timeit
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

#: Repetitions at least, however long one takes: the best of a few is no peak on a busy machine.
LEAST_TIMES = 10


@dataclasses.dataclass(frozen=True)
class Peak:
    """The fastest that was measured.

    Attributes:
      flops: operations per second of a matrix product; a multiply-add counts as two.
      bandwidth: bytes per second, read and written, of a copy.
    """

    flops: float
    bandwidth: float


def measure_peak(dtype: str, seconds: float = 1.0) -> Peak:
    """Returns the best of repetitions on the first device.

    Args:
      dtype: of the matrix product.
      seconds: for each of the two.
    """
    device = jax.devices()[0]
    side, count = (8192, 2**28) if device.platform != "cpu" else (1024, 2**25)
    a = jax.device_put(jnp.ones((side, side), dtype), device)
    product = jax.jit(lambda a: a @ a)
    x = jax.device_put(jnp.ones(count, jnp.float32), device)
    copy = jax.jit(lambda x: x + 1)
    return Peak(
        2 * side**3 / _least_seconds(lambda: product(a), seconds),
        2 * 4 * count / _least_seconds(lambda: copy(x), seconds),
    )


def _least_seconds(work: Callable[[], Any], seconds: float) -> float:
    jax.block_until_ready(work())  # compiles
    timer = timeit.Timer(lambda: jax.block_until_ready(work()))
    return min(timer.repeat(max(LEAST_TIMES, round(seconds / timer.timeit(1))), number=1))


def training_flops(forward: int) -> int:
    """Returns the operations of a training step on one image, from the multiply-adds of its forward pass.

    The forward pass and the two gradients cost the same each; a multiply-add is two operations.
    """
    return 3 * 2 * forward


def bytes_accessed(compiled: Any) -> float:
    """Returns the bytes that a program's operations read and write by XLA's count, which knows no caches."""
    cost = compiled.cost_analysis()
    cost = cost[0] if isinstance(cost, list) else cost
    return float((cost or {}).get("bytes accessed", float("nan")))
