"""A function computed in another way than XLA's, with a gradient of its own."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array


def with_gradient(
    plain: Callable[..., Any], forward: Callable[..., Any], gradient: Callable[[tuple[Array, ...], Any, Any], Any]
) -> Callable[..., Any]:
    """`forward` in the place of `plain`, which gives the same values, and whose second derivatives it has.

    Args:
      plain: takes arrays and gives one or a tuple of them.
      forward: the same in another way.
      gradient: of the arguments, from them, what `forward` gave and the cotangents of that.
    """

    @jax.custom_vjp
    def function(*args: Array) -> Any:
        return forward(*args)

    def function_forward(*args: Array) -> Any:
        outputs = function(*args)
        return outputs, (args, outputs)

    @jax.custom_vjp
    def pulled(args: tuple[Array, ...], outputs: Any, cotangents: Any) -> Any:
        return gradient(args, outputs, cotangents)

    def pulled_forward(*saved: Any) -> Any:
        return pulled(*saved), saved

    def pulled_backward(saved: Any, cotangents: Any) -> Any:
        args, outputs, of_outputs = saved

        def plainly(args: tuple[Array, ...], of_outputs: Any) -> Any:
            return jax.vjp(plain, *args)[1](of_outputs)

        of_args, of_cotangents = jax.vjp(plainly, args, of_outputs)[1](cotangents)
        return of_args, jax.tree.map(jnp.zeros_like, outputs), of_cotangents  # outputs follow from the arguments

    function.defvjp(function_forward, lambda saved, cotangents: pulled(*saved, cotangents))
    pulled.defvjp(pulled_forward, pulled_backward)
    return function
