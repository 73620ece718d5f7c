"""Compiles the C++ beside this file for this machine's processor, once, and keeps the library in the user's cache."""

import contextlib
import ctypes
import functools
import hashlib
import logging
import os
import shlex
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import jax
import jax.numpy as jnp
import jaxlib
from jax import Array

from resnet_jax.cache import default_folder

#: Set to 0, what XLA has of its own is used.
SWITCH = "RESNET_JAX_KERNELS"

FOLDER = Path(__file__).parent
OPTIONS = ("-std=c++17", "-O3", "-march=native", "-fPIC")

#: What XLA calls them, and the symbols.
TARGETS = {
    "resnet_jax.convolution": "Convolution",
    "resnet_jax.convolution_images_gradient": "ConvolutionImagesGradient",
    "resnet_jax.convolution_kernel_gradient": "ConvolutionKernelGradient",
    "resnet_jax.batch_norm": "BatchNorm",
    "resnet_jax.batch_norm_gradients": "BatchNormGradients",
    "resnet_jax.max_pool": "MaxPool",
    "resnet_jax.max_pool_gradient": "MaxPoolGradient",
}

#: Channels and features come in multiples of this.
BLOCK = 16

#: Batches of fewer images are XLA's, which shares out one image among processors, as the convolutions do not.
LEAST_BATCH = 8

log = logging.getLogger(__name__)

_switched_off = False


@contextlib.contextmanager
def switched_off() -> Iterator[None]:
    """What is traced meanwhile is XLA's, for comparison."""
    global _switched_off
    before, _switched_off = _switched_off, True
    try:
        yield
    finally:
        _switched_off = before


def in_use() -> bool:
    """Whether this process computes by the kernels: on one CPU device, where they can be compiled."""
    # XLA does not know how to share out a call between devices.
    return not _switched_off and jax.default_backend() == "cpu" and jax.device_count() == 1 and available()


def takes(x: Array, batch: int) -> bool:
    """Whether the kernels take x, of so many images: float32, no small batch, of known sizes, where they are in use."""
    known = all(isinstance(size, int) for size in x.shape)  # symbols while a net of any batch is exported
    return x.dtype == jnp.float32 and known and batch >= LEAST_BATCH and min(x.shape) > 0 and in_use()


@functools.cache
def available() -> bool:
    """Whether XLA can call the kernels in this process; the first call compiles them, which takes some seconds.

    Without a C++ compiler (`$CXX` or `c++`), with a cache that cannot be written to, or with `RESNET_JAX_KERNELS=0`
    it cannot, and says why in the log.
    """
    if os.environ.get(SWITCH) == "0":
        return False
    try:
        library = ctypes.CDLL(str(build(default_folder())))
    except (OSError, RuntimeError, subprocess.CalledProcessError) as error:
        told = error.stderr.strip()[-400:] if isinstance(error, subprocess.CalledProcessError) else error
        log.warning("kernels of this package could not be compiled, so XLA's own are used: %s", told)
        return False
    for target, symbol in TARGETS.items():
        jax.ffi.register_ffi_target(target, jax.ffi.pycapsule(getattr(library, symbol)), platform="cpu")
    return True


def build(folder: Path) -> Path:
    """The library, in `folder`, compiled if it is not there for this source, compiler and version of XLA's interface.

    Its name ends in its checksum: a library that was cut short, as by a loss of power, would end the process that loads
    it, and is compiled anew.

    Raises:
      OSError: if there is no compiler, or the folder cannot be written to.
      subprocess.CalledProcessError: if it does not compile.
    """
    compiler = shlex.split(os.environ.get("CXX") or shutil.which("c++") or "")  # CXX may be "ccache g++"
    if not compiler:
        raise FileNotFoundError("there is no C++ compiler")
    version = subprocess.run([*compiler, "--version"], check=True, capture_output=True, text=True).stdout
    sources = sorted(FOLDER.glob("*.cc"))
    texts = [path.read_text() for path in (*sources, *sorted(FOLDER.glob("*.h")))]
    inputs = (*texts, version, jaxlib.__version__, *compiler[1:], *OPTIONS)
    name = f"kernels-{_digest(repr(inputs).encode())}"
    for path in folder.glob(f"{name}-*.so"):
        if path.stem == f"{name}-{_digest(path.read_bytes())}":
            return path
        path.unlink(missing_ok=True)
    log.info("compiling the kernels in %s with %s", FOLDER, shlex.join(compiler))
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder) as scratch:

        def call(out: str, *arguments: str) -> str:
            path = str(Path(scratch) / out)
            subprocess.run([*compiler, *OPTIONS, *arguments, "-o", path], check=True, capture_output=True, text=True)
            return path

        def compile_one(source: Path) -> str:
            return call(f"{source.stem}.o", "-c", "-isystem", jax.ffi.include_dir(), str(source))

        with ThreadPoolExecutor() as at_once:
            out = Path(call("kernels.so", "-shared", *at_once.map(compile_one, sources)))
        path = folder / f"{name}-{_digest(out.read_bytes())}.so"
        out.replace(path)  # at once: several processes may be at it
    return path


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()[:16]
