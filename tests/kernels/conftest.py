"""Kernels by this processor's instructions, and by the least that a processor of its kind has."""

import platform
from functools import partial

import jax
import pytest

from resnet_jax.kernels import batch_norm, build, convolution, max_pool


@pytest.fixture(scope="session")
def portable(compiled_folder):
    """The kernels for any x86-64 processor, with vectors of four, beside this processor's: XLA knows them by a name."""
    if platform.machine() not in ("x86_64", "AMD64"):
        pytest.skip("the least instructions that are tested are x86-64's")
    register("portable", "x86-64", compiled_folder)


@pytest.fixture(scope="session")
def avx2(compiled_folder):
    """The same for x86-64 processors with vectors of eight."""
    if platform.machine() not in ("x86_64", "AMD64") or " avx2 " not in open("/proc/cpuinfo").read():
        pytest.skip("this processor has no AVX2")
    register("avx2", "x86-64-v3", compiled_folder)


def register(name, architecture, folder):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(build, "OPTIONS", tuple(o.replace("native", architecture) for o in build.OPTIONS))
        library = build.ctypes.CDLL(str(build.build(folder)))
    for target, symbol in build.TARGETS.items():
        other = target.replace("resnet_jax.", f"resnet_jax.{name}_")
        jax.ffi.register_ffi_target(other, jax.ffi.pycapsule(getattr(library, symbol)), platform="cpu")


@pytest.fixture(params=["this processor's", "portable", "avx2"])
def instructions(request, kernels, monkeypatch):
    if request.param != "this processor's":
        request.getfixturevalue(request.param)
        for module in (convolution, batch_norm, max_pool):
            monkeypatch.setattr(module, "_call", partial(by_another_name, f"{request.param}_", module._call))


def by_another_name(prefix, call, name, *args):
    return call(prefix + name, *args)
