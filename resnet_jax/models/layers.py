"""Convolution, classifier and pooling as the papers have them: explicit padding, He initialisation."""

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Literal

import jax
import jax.numpy as jnp
from flax import linen as nn
from flax.typing import Dtype, Initializer
from jax import Array

from resnet_jax.kernels import conv_general_dilated, dot_general

InitMode = Literal["fan_in", "fan_out"]
Padding = Literal["symmetric", "same"]
PADDINGS: tuple[Padding, ...] = ("symmetric", "same")
INIT_MODES: tuple[InitMode, ...] = ("fan_in", "fan_out")

#: What numbers are multiplied in: a platform's own choice for their dtype, or more digits; see docs/fidelity.md.
PRECISIONS = ("default", "high", "highest")

#: Numbers that an initialiser draws at least, eight times as many for a kernel that needs more, and so on; behind the
#: second number, what is not needed would cost more than a draw of its own takes to compile.
LEAST_DRAW, MOST_SHARED = 2**16, 2**22

#: A layer class with its fields bound once for a whole net.
ModuleFactory = Callable[..., nn.Module]


def he_normal(mode: InitMode) -> Initializer:
    """Normal with variance 2 / fan, not truncated (He et al. 2015b, "Delving Deep into Rectifiers", eq. 10, 14).

    Flax's `he_normal` is truncated at two deviations, and its default `lecun_normal` is sqrt(2) too small. The values
    are those of `nn.initializers.variance_scaling`, to the last digit. Its draw takes 0.8 s to compile for each shape
    of a kernel, most of a first start; here layers share the draws of a few sizes, and each takes what it needs.
    """

    def init(key: Array, shape: Sequence[int], dtype: Dtype = jnp.float32, out_sharding: Any = None) -> Array:
        fan = math.prod(shape[:-2]) * (shape[-2] if mode == "fan_in" else shape[-1])
        drawn = LEAST_DRAW
        while drawn < math.prod(shape):
            drawn *= 8
        if drawn > MOST_SHARED:
            drawn = math.prod(shape)
        # JAX's counter-based generator gives the first of many what it gives the first of few.
        return _deviating(jax.random.normal(key, (drawn,), dtype), 2.0 / fan, tuple(shape))

    return init


@partial(jax.jit, static_argnames="shape")
def _deviating(drawn: Array, variance: float, shape: tuple[int, ...]) -> Array:
    return drawn[: math.prod(shape)].reshape(shape) * jnp.sqrt(jnp.asarray(variance, drawn.dtype))


def conv(features: int, kernel_size: int, strides: int = 1, *, init_mode: InitMode = "fan_in",
         dtype: Dtype = jnp.float32, padding: Padding = "symmetric", use_bias: bool = False, name: str | None = None,
         dilation: int = 1, groups: int = 1, bias_init: Initializer = nn.initializers.zeros,
         precision: str = "default", kernel_init: Initializer | None = None) -> nn.Conv:  # fmt: skip
    """A square convolution padded by (k - 1) / 2 on every side, times the dilation, which spreads its kernel out.

    XLA's `SAME` would pad a strided 3x3 by (0, 1): other pixels than Caffe's and Torch's (1, 1). With the padding
    "same" a 3x3 has that; the 7x7 of a stem is symmetric all the same, as in flax/examples/imagenet.

    Gradients of the kernel and the bias are float32 whatever the dtype. So is the output, with a bias.
    """
    return nn.Conv(
        features,
        (kernel_size, kernel_size),
        strides=strides,
        padding="SAME" if padding == "same" and kernel_size == 3 else dilation * (kernel_size - 1) // 2,
        kernel_dilation=dilation,
        feature_group_count=groups,
        use_bias=use_bias,
        kernel_init=kernel_init or he_normal(init_mode),
        bias_init=bias_init,
        dtype=dtype,
        precision=precision_of(precision),
        promote_dtype=_cast_inputs,
        conv_general_dilated=conv_general_dilated,
        name=name,
    )


def dense(features: int, dtype: Dtype, name: str, precision: str = "default") -> nn.Dense:
    """A fully connected layer: He initialisation over its inputs, zero bias, and an output in float32."""
    return nn.Dense(
        features,
        kernel_init=he_normal("fan_in"),
        dtype=dtype,
        precision=precision_of(precision),
        promote_dtype=_cast_inputs,
        dot_general=dot_general,
        name=name,
    )


def precision_of(name: str) -> str | None:
    """Returns JAX's name of one of `PRECISIONS`; None leaves the choice to the platform."""
    return None if name == "default" else name


def _cast_inputs(*args: Array | None, dtype: Any = None, inexact: bool = True) -> list[Array | None]:
    """Casts the inputs of an `nn.Conv` or `nn.Dense` alone, so that parameters have float32 gradients."""
    inputs, *parameters = args
    return [jnp.asarray(inputs, dtype), *parameters]


def average_pool(x: Array, window: int | None = None) -> Array:
    """Averages (batch, height, width, features) over positions to (batch, features).

    Args:
      x: features of the last stage.
      window: side of a square that moves by one position at a time. The averages in it are averaged again, so that
        positions near a border, which fewer squares hold, count less. None, and a side that is larger than the
        features, mean all positions at once.
    """
    if window is not None:
        x = nn.avg_pool(x, (min(window, x.shape[1]), min(window, x.shape[2])))
    return jnp.mean(x, axis=(1, 2))
