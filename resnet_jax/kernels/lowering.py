"""A JAX primitive whose computation is chosen when a program is lowered, by the devices that the program is for."""

import functools
import itertools
from collections.abc import Callable, Sequence
from typing import Any

import jax
from jax import Array
from jax.extend.core import Primitive
from jax.interpreters import batching, mlir


class Computation(functools.partial):
    """A function with keywords bound, equal to another one of the same function and keywords, so that caches hit.

    Called with arrays and `cpus`, it returns a sequence of arrays. `cpus` is the number of CPU devices that the program
    is for; it is 0 on other platforms, and in a program that is exported.
    """

    def __hash__(self) -> int:
        return hash((self.func, *sorted(self.keywords.items(), key=lambda item: item[0])))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Computation) and (self.func, self.keywords) == (other.func, other.keywords)


_layer = Primitive("resnet_jax_layer")
_layer.multiple_results = True


def differentiable(
    forward: Computation, *gradients: Computation, kept: Sequence[int] = ()
) -> Callable[..., tuple[Array, ...]]:
    """Returns `forward` as a function of arrays, with gradients of its own.

    Second derivatives are those of `forward` with `cpus=0`.

    Args:
      forward: takes arrays.
      gradients: each takes the same arrays, the outputs that are kept, and the cotangents of all outputs. They return
        the gradients of the arrays, one after another. One whose results nobody needs is not computed.
      kept: indices of the outputs that gradients take.
    """

    @jax.custom_vjp
    def function(*args: Array) -> tuple[Array, ...]:
        return tuple(_layer.bind(*args, computation=forward))

    def function_forward(*args: Array) -> Any:
        outputs = function(*args)
        return outputs, (args, tuple(outputs[i] for i in kept))

    @jax.custom_vjp
    def pullback(args: tuple[Array, ...], saved: tuple[Array, ...], cotangents: tuple[Array, ...]) -> Any:
        found = (_layer.bind(*args, *saved, *cotangents, computation=gradient) for gradient in gradients)
        return tuple(itertools.chain.from_iterable(found))

    def pullback_forward(*saved: Any) -> Any:
        return pullback(*saved), saved

    def pullback_backward(inputs: Any, cotangents: Any) -> Any:
        args, saved, of_outputs = inputs

        def plain(*args: Array) -> tuple[Array, ...]:
            return tuple(forward(*args, cpus=0))

        def plain_pullback(args: tuple[Array, ...], of_outputs: tuple[Array, ...]) -> Any:
            return jax.vjp(plain, *args)[1](of_outputs)

        of_args, of_cotangents = jax.vjp(plain_pullback, args, of_outputs)[1](cotangents)
        return (
            of_args,
            jax.tree.map(jax.numpy.zeros_like, saved),
            of_cotangents,
        )  # what is saved follows from the arrays

    function.defvjp(function_forward, lambda saved, cotangents: pullback(*saved, cotangents))
    pullback.defvjp(pullback_forward, pullback_backward)
    return function


@functools.partial(jax.jit, static_argnames="computation")
def _outside_jit(*args: Array, computation: Computation) -> Any:
    return _layer.bind(*args, computation=computation)


@_layer.def_impl
def _evaluate(*args: Array, computation: Computation) -> Any:
    if jax.config.jax_disable_jit:  # type: ignore[attr-defined]
        return computation(*args, cpus=0)
    return _outside_jit(*args, computation=computation)


@functools.lru_cache(maxsize=4096)
def _outputs(computation: Computation, *args: jax.ShapeDtypeStruct) -> list[jax.core.ShapedArray]:
    outputs = jax.eval_shape(functools.partial(computation, cpus=0), *args)
    return [jax.core.ShapedArray(x.shape, x.dtype) for x in outputs]


@_layer.def_abstract_eval
def _abstract_eval(*args: Any, computation: Computation) -> list[jax.core.ShapedArray]:
    return _outputs(computation, *(jax.ShapeDtypeStruct(x.shape, x.dtype) for x in args))


def _lower(context: mlir.LoweringRuleContext, *operands: Any, computation: Computation) -> Any:
    module = context.module_context
    cpus = 0
    if tuple(module.platforms) == ("cpu",) and not module.lowering_parameters.for_export:
        axes: Any = module.axis_context  # has a mesh inside shard_map
        cpus = axes.mesh.size if hasattr(axes, "mesh") else axes.num_devices
    lower = mlir.lower_fun(functools.partial(computation, cpus=cpus), multiple_results=True)
    return lower(context, *operands)


def _vmapped(*args: Array, cpus: int, computation: Computation, dims: tuple[int | None, ...]) -> Any:
    return jax.vmap(functools.partial(computation, cpus=cpus), dims)(*args)


def _batch(args: Sequence[Array], dims: Sequence[int | None], *, computation: Computation) -> Any:
    outputs = _layer.bind(*args, computation=Computation(_vmapped, computation=computation, dims=tuple(dims)))
    return outputs, [0] * len(outputs)


mlir.register_lowering(_layer, _lower)
batching.primitive_batchers[_layer] = _batch
