"""Compiles convolution.cc for this machine's processor, once, and keeps the library in the user's cache."""

import ctypes
import functools
import hashlib
import logging
import os
import shlex
import shutil
import subprocess
import tempfile
from pathlib import Path

import jax
import jaxlib

from resnet_jax.cache import default_folder

#: Set to 0, XLA's own convolutions are used.
SWITCH = "RESNET_JAX_KERNELS"

SOURCE = Path(__file__).with_name("convolution.cc")
OPTIONS = ("-std=c++17", "-O3", "-march=native", "-fPIC", "-shared")

#: What XLA calls them, and the symbols.
TARGETS = {
    "resnet_jax.convolution": "Convolution",
    "resnet_jax.convolution_images_gradient": "ConvolutionImagesGradient",
    "resnet_jax.convolution_kernel_gradient": "ConvolutionKernelGradient",
}

log = logging.getLogger(__name__)


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
        log.warning("convolutions of this package could not be compiled, so XLA's own are used: %s", told)
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
    inputs = (SOURCE.read_text(), version, jaxlib.__version__, *compiler[1:], *OPTIONS)
    name = f"kernels-{_digest(repr(inputs).encode())}"
    for path in folder.glob(f"{name}-*.so"):
        if path.stem == f"{name}-{_digest(path.read_bytes())}":
            return path
        path.unlink(missing_ok=True)
    log.info("compiling %s with %s", SOURCE.name, shlex.join(compiler))
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder) as scratch:
        out = Path(scratch) / "kernels.so"
        command = [*compiler, *OPTIONS, "-isystem", jax.ffi.include_dir(), str(SOURCE), "-o", str(out)]
        subprocess.run(command, check=True, capture_output=True, text=True)
        path = folder / f"{name}-{_digest(out.read_bytes())}.so"
        out.replace(path)  # at once: several processes may be at it
    return path


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()[:16]
