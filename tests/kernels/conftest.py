"""Kernels by this processor's instructions, and by the least that a processor of its kind has."""

import platform

import pytest

from resnet_jax.kernels import build


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
        build.register(build.build(folder), f"resnet_jax_{name}")


@pytest.fixture(params=["this processor's", "portable", "avx2"])
def instructions(request, kernels, monkeypatch):
    if request.param != "this processor's":
        request.getfixturevalue(request.param)
        monkeypatch.setattr(build, "PREFIX", f"resnet_jax_{request.param}")
