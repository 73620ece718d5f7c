"""A JAX primitive whose computation is chosen when a program is lowered, by the devices that the program is for."""

import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
from jax import Array
from jax.extend.core import Primitive
from jax.interpreters import ad, batching, mlir


class Computation(functools.partial):
    """A function with keywords bound, equal to another one of the same function and keywords, so that caches hit.

    Called with arrays and `cpus`, it returns a sequence of arrays. `cpus` is the number of CPU devices that the program
    is for; it is 0 on other platforms, and in a program that is exported.
    """

    def __hash__(self) -> int:
        return hash((self.func, *sorted(self.keywords.items(), key=lambda item: item[0])))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Computation) and (self.func, self.keywords) == (other.func, other.keywords)


class Layer(NamedTuple):
    """What a layer computes; `gradient` is None where JAX differentiates `forward` itself."""

    forward: Computation
    gradient: Computation | None = None
    kept: tuple[int, ...] = ()


_layer = Primitive("resnet_jax_layer")
_layer.multiple_results = True

# The outputs' tangents, linear in those of some arrays. Its transpose is the layer's gradient.
_tangents = Primitive("resnet_jax_layer_tangents")
_tangents.multiple_results = True


def differentiable(
    forward: Computation, gradient: Computation, kept: Sequence[int] = ()
) -> Callable[..., tuple[Array, ...]]:
    """Returns `forward` as a function of arrays, with a gradient of its own.

    In forward mode, and for second derivatives, JAX differentiates `forward` with `cpus=0`.

    Args:
      forward: takes arrays.
      gradient: takes the same arrays, the outputs that are kept, and the cotangents of all outputs, and returns the
        gradients of the arrays with the indices `wanted`, a keyword.
      kept: indices of the outputs that the gradient takes.
    """
    layer = Layer(forward, gradient, tuple(kept))
    return lambda *args: tuple(_layer.bind(*args, layer=layer))


def _compute(*args: Array, cpus: int, layer: Layer) -> Sequence[Array]:
    return tuple(layer.forward(*args, cpus=cpus))


def _compute_tangents(*operands: Array, cpus: int, layer: Layer, moving: tuple[int, ...]) -> Sequence[Array]:
    """Takes the arrays, the outputs that are kept, and the tangents of the arrays at the indices `moving`."""
    del cpus  # XLA computes on every platform
    args = operands[: len(operands) - len(layer.kept) - len(moving)]
    tangents = [jax.numpy.zeros_like(x) for x in args]
    for i, tangent in zip(moving, operands[len(operands) - len(moving) :], strict=True):
        tangents[i] = tangent
    return jax.jvp(functools.partial(_compute, cpus=0, layer=layer), args, tuple(tangents))[1]


def _jvp(args: Sequence[Array], tangents: Sequence[Any], *, layer: Layer) -> Any:
    outputs = _layer.bind(*args, layer=layer)
    moving = tuple(i for i, tangent in enumerate(tangents) if not isinstance(tangent, ad.Zero))
    kept = [outputs[i] for i in layer.kept]
    operands = (*args, *kept, *(tangents[i] for i in moving))
    if layer.gradient is None:
        return outputs, _compute_tangents(*operands, cpus=0, layer=layer, moving=moving)
    return outputs, _tangents.bind(*operands, layer=layer, moving=moving)


def _transpose(cotangents: Sequence[Any], *operands: Any, layer: Layer, moving: tuple[int, ...]) -> Sequence[Any]:
    assert layer.gradient is not None
    fixed = operands[: len(operands) - len(moving)]
    gradient = Layer(Computation(layer.gradient, wanted=moving))
    return [None] * len(fixed) + list(_layer.bind(*fixed, *map(ad.instantiate_zeros, cotangents), layer=gradient))


def _jvp_of_tangents(
    operands: Sequence[Array], tangents: Sequence[Any], *, layer: Layer, moving: tuple[int, ...]
) -> Any:
    # What is kept follows from the arrays, so that no tangent of it counts.
    compute = functools.partial(_compute_tangents, cpus=0, layer=layer, moving=moving)
    return jax.jvp(compute, tuple(operands), tuple(map(ad.instantiate_zeros, tangents)))


def _batch(args: Sequence[Array], dims: Sequence[int | None], *, layer: Layer) -> Any:
    forward = Computation(_vmapped, computation=layer.forward, dims=tuple(dims))
    gradient = layer.gradient and Computation(_vmapped_gradient, computation=layer.gradient, dims=tuple(dims))
    outputs = _layer.bind(*args, layer=Layer(forward, gradient, layer.kept))
    return outputs, [0] * len(outputs)


def _vmapped(*args: Array, cpus: int, computation: Computation, dims: tuple[int | None, ...]) -> Sequence[Array]:
    return jax.vmap(functools.partial(computation, cpus=cpus), dims)(*args)


def _vmapped_gradient(
    *operands: Array, cpus: int, wanted: tuple[int, ...], computation: Computation, dims: tuple[int | None, ...]
) -> Sequence[Array]:
    def gradients(*operands: Array) -> tuple[Array, ...]:
        return tuple(computation(*operands, cpus=cpus, wanted=wanted))

    in_dims = (*dims, *[0] * (len(operands) - len(dims)))
    found = jax.vmap(gradients, in_dims, tuple(dims[i] or 0 for i in wanted))(*operands)
    # An array that is the same for all gets the sum.
    return [g.sum(0) if dims[i] is None else g for g, i in zip(found, wanted, strict=True)]


def _batch_tangents(operands: Sequence[Array], dims: Sequence[int | None], **parameters: Any) -> Any:
    compute = functools.partial(_compute_tangents, cpus=0, **parameters)
    outputs = jax.vmap(compute, tuple(dims))(*operands)
    return outputs, [0] * len(outputs)


@functools.lru_cache(maxsize=4096)
def _shapes(layer: Layer, *args: jax.ShapeDtypeStruct) -> list[jax.core.ShapedArray]:
    outputs = jax.eval_shape(functools.partial(_compute, cpus=0, layer=layer), *args)
    return [jax.core.ShapedArray(x.shape, x.dtype) for x in outputs]


def _abstract_eval(*operands: Any, layer: Layer, moving: tuple[int, ...] | None = None) -> list[jax.core.ShapedArray]:
    args = operands if moving is None else operands[: len(operands) - len(layer.kept) - len(moving)]
    return _shapes(layer, *(jax.ShapeDtypeStruct(x.shape, x.dtype) for x in args))


def _lower(compute: Callable[..., Any], context: mlir.LoweringRuleContext, *operands: Any, **parameters: Any) -> Any:
    module = context.module_context
    cpus = 0
    if tuple(module.platforms) == ("cpu",) and not module.lowering_parameters.for_export:
        axes: Any = module.axis_context  # has a mesh inside shard_map
        cpus = axes.mesh.size if hasattr(axes, "mesh") else axes.num_devices
    lower = mlir.lower_fun(functools.partial(compute, cpus=cpus, **parameters), multiple_results=True)
    return lower(context, *operands)


def _register(primitive: Primitive, compute: Callable[..., Any]) -> None:
    outside_jit = jax.jit(
        lambda *operands, parameters: primitive.bind(*operands, **dict(parameters)), static_argnames="parameters"
    )

    @primitive.def_impl
    def evaluate(*operands: Array, **parameters: Any) -> Any:
        if jax.config.jax_disable_jit:  # type: ignore[attr-defined]
            return compute(*operands, cpus=0, **parameters)
        return outside_jit(*operands, parameters=tuple(parameters.items()))

    primitive.def_abstract_eval(_abstract_eval)
    mlir.register_lowering(primitive, functools.partial(_lower, compute))


_register(_layer, _compute)
_register(_tangents, _compute_tangents)
ad.primitive_jvps[_layer] = _jvp
ad.primitive_jvps[_tangents] = _jvp_of_tangents
ad.primitive_transposes[_tangents] = _transpose
batching.primitive_batchers[_layer] = _batch
batching.primitive_batchers[_tangents] = _batch_tangents
