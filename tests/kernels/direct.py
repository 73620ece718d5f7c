"""Convolutions and their gradients as direct sums in float64, and how far float32's may be from them."""

import re

import jax
import numpy as np

NAMES = ("NHWC", "HWIO", "NHWC")


def output_size(size, taps, stride, pads):
    return (size + sum(pads) - taps) // stride + 1


def sums(images, kernel, cotangent, window):
    """The outputs, and the gradients of images and kernel for the outputs' cotangent, tap by tap."""
    strides, pads = window
    padded = np.pad(images, ((0, 0), *pads, (0, 0)))
    outputs, of_padded, of_kernel = np.zeros(cotangent.shape), np.zeros(padded.shape), np.zeros(kernel.shape)
    for i in range(kernel.shape[0]):
        for j in range(kernel.shape[1]):
            ends = (strides[0] * (cotangent.shape[1] - 1) + 1, strides[1] * (cotangent.shape[2] - 1) + 1)
            seen = (slice(None), slice(i, i + ends[0], strides[0]), slice(j, j + ends[1], strides[1]))
            outputs += padded[seen] @ kernel[i, j]
            of_padded[seen] += cotangent @ kernel[i, j].T
            of_kernel[i, j] = np.einsum("bhwc,bhwf->cf", padded[seen], cotangent, optimize=True)
    (top, _), (left, _) = pads
    of_images = of_padded[:, top : top + images.shape[1], left : left + images.shape[2]]
    return outputs, of_images, of_kernel


def assert_sums(found, images, kernel, cotangent, window):
    """Outputs and both gradients (None: not compared) are these sums, as exactly as float32 can have them.

    Each of n roundings is off by 2^-24 of a partial sum at most, which is at most the sum of absolute products: n times
    that is certain, in any order of the sum. Roundings are as often up as down, so that many add up like sqrt(n), of
    which twice is allowed.
    """
    arrays = [np.asarray(x, np.float64) for x in (images, kernel, cotangent)]
    expected = sums(*arrays, window)
    sizes = sums(*map(np.abs, arrays), window)
    terms = sums(*map(np.ones_like, arrays), window)
    for name, x, y, size, n in zip(("outputs", "images", "kernel"), found, expected, sizes, terms, strict=True):
        if x is None:
            continue
        assert x.dtype == np.float32 and x.shape == y.shape
        error = np.abs(np.asarray(x, np.float64) - y)
        bound = np.minimum(n, 2 * np.sqrt(n)) * 2.0**-24 * size
        assert np.all(error <= bound), f"{name}: {np.sum(error > bound)} of {error.size} off, by {error.max():.3g}"


def arrays(batch, size, channels, features, taps, window, seed=0):
    """Random images, a kernel and a cotangent of the outputs."""
    draw = np.random.default_rng(seed)
    out = [output_size(*of) for of in zip(size, taps, *window, strict=True)]
    shapes = ((batch, *size, channels), (*taps, channels, features), (batch, *out, features))
    return tuple(draw.normal(size=shape).astype(np.float32) for shape in shapes)


def calls(function, *args):
    """Returns how many kernels a program of this function calls, lowered for one CPU device."""
    return len(called(function, *args))


def called(function, *args):
    """Returns the kernels that a program for one CPU device calls, in order."""
    # Of a function made here, as JAX keeps what it has traced.
    program = jax.jit(lambda *args: function(*args)).trace(*args).lower(lowering_platforms=("cpu",))
    return re.findall(r"stablehlo.custom_call @resnet_jax\w*\.(\w+)", program.as_text())


def on_two_devices(x, axis=0):
    """Returns an array that two devices share along an axis."""
    mesh = jax.sharding.Mesh(jax.devices()[:2], "batch")
    return jax.device_put(x, jax.sharding.NamedSharding(mesh, jax.P(*[None] * axis, "batch")))
