"""What the hardware can do at most, as measured here: one large matrix product, one large copy."""

import dataclasses
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

#: Repetitions, however long one takes: the best of few is no roof on a busy machine.
LEAST_TIMES = 10


@dataclasses.dataclass(frozen=True)
class Roof:
    """Attributes:
    flops: a second, of the fastest matrix product; a multiply-add counts twice.
    bandwidth: bytes a second, read and written, of the fastest copy.
    """

    flops: float
    bandwidth: float


def measure_roof(dtype: str, seconds: float = 1.0) -> Roof:
    """The best of repetitions, on the first device.

    Args:
      dtype: of the matrix product.
      seconds: for each of the two.
    """
    device = jax.devices()[0]
    large = device.platform != "cpu"
    side, count = (8192, 2**28) if large else (1024, 2**25)
    a = jax.device_put(jnp.ones((side, side), dtype), device)
    product = jax.jit(lambda a: a @ a)
    x = jax.device_put(jnp.ones(count, jnp.float32), device)
    copy = jax.jit(lambda x: x + 1)
    return Roof(
        2 * side**3 / _least_seconds(lambda: product(a), seconds),
        2 * 4 * count / _least_seconds(lambda: copy(x), seconds),
    )


def _least_seconds(work: Callable[[], Any], seconds: float) -> float:
    jax.block_until_ready(work())
    least, end, times = float("inf"), time.perf_counter() + seconds, 0
    while time.perf_counter() < end or times < LEAST_TIMES:
        times += 1
        began = time.perf_counter()
        jax.block_until_ready(work())
        least = min(least, time.perf_counter() - began)
    return least


def training_flops(forward: int) -> int:
    """Floating-point operations of a training step on one image, from the forward pass's multiply-adds.

    Three passes of the same size, forward and for either gradient; two operations for a multiply-add.
    """
    return 3 * 2 * forward


def bytes_accessed(compiled: Any) -> float:
    """Bytes that a program's operations read and write, as XLA counts them: caches are not seen, so an upper bound."""
    cost = compiled.cost_analysis()
    cost = cost[0] if isinstance(cost, list) else cost
    return float((cost or {}).get("bytes accessed", float("nan")))
