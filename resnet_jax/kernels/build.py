"""The library of the C++ beside this file: compiled once for this machine's processor, and kept in the user's cache."""

import contextlib
import ctypes
import fcntl
import functools
import hashlib
import logging
import os
import shlex
import shutil
import stat
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import jaxlib
import numpy as np
from jax import Array

from resnet_jax.cache import WRITABLE_BY_OTHERS, default_folder, make_private
from resnet_jax.errors import one_line

#: Set to 0 in the environment, XLA computes every layer.
SWITCH = "RESNET_JAX_KERNELS"

FOLDER = Path(__file__).parent
OPTIONS = ("-std=c++17", "-O3", "-march=native", "-fPIC")

#: Functions by the names that XLA knows them by, behind `PREFIX`.
TARGETS = {
    "convolution": "Convolution",
    "convolution_images_gradient": "ConvolutionImagesGradient",
    "convolution_kernel_gradient": "ConvolutionKernelGradient",
    "batch_norm": "BatchNorm",
    "batch_norm_gradients": "BatchNormGradients",
    "max_pool": "MaxPool",
    "max_pool_gradient": "MaxPoolGradient",
}
PREFIX = "resnet_jax"

#: What the folder's name of a compilation that is under way begins with.
SCRATCH = "compiling-"

#: Channels and features come in multiples of this.
BLOCK = 16

#: XLA computes smaller batches: it divides one image among processors, which these convolutions do not.
LEAST_BATCH = 8

#: Seconds after which a compiler counts as stuck.
LONGEST = 600

log = logging.getLogger(__name__)

_switched_off = False


@contextlib.contextmanager
def switched_off() -> Iterator[None]:
    """Leaves to XLA what is traced inside, for comparisons."""
    global _switched_off
    before, _switched_off = _switched_off, True
    try:
        yield
    finally:
        _switched_off = before


def in_use(devices: Sequence[jax.Device] | None = None) -> bool:
    """Returns whether a program for these devices, by default all, uses the compiled layers: one CPU can."""
    devices = jax.devices() if devices is None else devices
    return _switched_on() and len(devices) == 1 and devices[0].platform == "cpu" and available()


def runs_on(cpus: int) -> bool:
    """Returns whether a program for so many CPU devices can call the library: XLA cannot share a call among several."""
    return cpus == 1 and available()


def supports(x: Array, batch: int, blocks: bool = True) -> bool:
    """Returns whether the library can take x, of so many images: float32, of known sizes, channels in blocks."""
    return (
        x.dtype == jnp.float32
        and has_known_sizes(x)
        and batch >= LEAST_BATCH
        and min(x.shape) > 0
        and (not blocks or x.shape[-1] % BLOCK == 0)
        and _switched_on()
    )


def has_known_sizes(x: Array) -> bool:
    """Returns whether all sizes are numbers: those of a net that is exported for any batch are symbols."""
    return all(isinstance(size, int) for size in x.shape)


def call(name: str, shapes: Sequence[tuple[int, ...]], *operands: Array, **attributes: Any) -> Sequence[Array]:
    """Calls a function of the library, which returns float32 arrays of these shapes."""
    out = [jax.ShapeDtypeStruct(shape, jnp.float32) for shape in shapes]
    sized = {key: np.int64(value) if type(value) is int else value for key, value in attributes.items()}
    found: Sequence[Array] = jax.ffi.ffi_call(f"{PREFIX}.{name}", out, vmap_method="sequential")(*operands, **sized)
    return found


def _switched_on() -> bool:
    return not _switched_off and os.environ.get(SWITCH) != "0"


def available() -> bool:
    """Returns whether XLA can call the library in this process; see `library`."""
    return library() is not None


@functools.cache
def library() -> str | None:
    """Returns the name of the library that XLA can call in this process; the first call compiles it, for some seconds.

    The name is that of the source, compiler, options and jaxlib that it is made from. There is none without a C++
    compiler (`$CXX` or `c++`), with a cache that cannot be written to or is another user's, and with
    `RESNET_JAX_KERNELS=0`. The log says why.
    """
    if os.environ.get(SWITCH) == "0":
        return None
    try:
        path = build(default_folder())
        register(path, PREFIX)
    except Exception as error:  # a compiler can fail in any way, and XLA computes without it
        said = error.stderr if isinstance(error, subprocess.CalledProcessError) else ""
        reason = " ".join(said.split())[-400:] or one_line(error, 400)
        log.warning("kernels of this package could not be compiled, so XLA's own are used: %s", reason)
        return None
    return path.stem.rpartition("-")[0]


def register(path: Path, prefix: str) -> None:
    """Makes the functions of a library known to XLA, as `prefix.name`: all of them, or none if one is missing."""
    loaded = ctypes.CDLL(str(path))
    functions = {name: jax.ffi.pycapsule(getattr(loaded, symbol)) for name, symbol in TARGETS.items()}
    for name, function in functions.items():
        jax.ffi.register_ffi_target(f"{prefix}.{name}", function, platform="cpu")


def build(folder: Path) -> Path:
    """Returns the library in `folder`, and compiles it if none there is of this source, compiler and jaxlib.

    Its name ends in its checksum: a file that was cut short, as by a power failure, would crash the process that loads
    it, so it is compiled again. So is one that another user could have written. What killed compilations left in the
    folder is removed.

    Raises:
      OSError: if there is no compiler, or the folder cannot be written to or is another user's.
      subprocess.SubprocessError: if it does not compile.
      ValueError: if `$CXX` has no end to its quotes.
    """
    compiler = shlex.split(os.environ.get("CXX") or shutil.which("c++") or "")  # CXX may be "ccache g++"
    if not compiler:
        raise FileNotFoundError("there is no C++ compiler")
    version = _run(*compiler, "--version")
    sources = sorted(FOLDER.glob("*.cc"))
    texts = [path.read_text() for path in (*sources, *sorted(FOLDER.glob("*.h")))]
    inputs = (*texts, version, jaxlib.__version__, *compiler[1:], *OPTIONS)
    name = f"kernels-{_digest(repr(inputs).encode())}"
    make_private(folder)
    _remove_abandoned(folder)
    for path in folder.glob(f"{name}-*.so"):
        if _is_own_file(path) and path.stem == f"{name}-{_digest(path.read_bytes())}":
            return path
        path.unlink(missing_ok=True)
    log.info("compiling the kernels in %s with %s", FOLDER, shlex.join(compiler))
    with _scratch(folder) as scratch:

        def call(out: str, *arguments: str) -> str:
            path = scratch / out
            _run(*compiler, *OPTIONS, *arguments, "-o", str(path))
            return str(path)

        def compile_one(source: Path) -> str:
            return call(f"{source.stem}.o", "-c", "-isystem", jax.ffi.include_dir(), str(source))

        with ThreadPoolExecutor() as pool:
            out = Path(call("kernels.so", "-shared", *pool.map(compile_one, sources)))
        out.chmod(0o700)
        path = folder / f"{name}-{_digest(out.read_bytes())}.so"
        out.replace(path)  # one step: several processes may do this at the same time
    return path


def _run(*command: str) -> str:
    """Returns what a command prints, in whatever encoding."""
    done = subprocess.run(command, check=True, capture_output=True, errors="replace", timeout=LONGEST)
    return done.stdout


def _is_own_file(path: Path) -> bool:
    """Returns whether a file is this user's, and nobody else can write to it."""
    status = path.lstat()
    own = stat.S_ISREG(status.st_mode) and status.st_uid == os.geteuid()
    return own and not status.st_mode & WRITABLE_BY_OTHERS


@contextlib.contextmanager
def _scratch(folder: Path) -> Iterator[Path]:
    """Makes a folder in `folder`, locked while this process lives, and removes it."""
    path = Path(tempfile.mkdtemp(prefix=SCRATCH, dir=folder))
    lock = os.open(path, os.O_RDONLY)
    try:
        with contextlib.suppress(OSError):  # a file system without locks
            fcntl.flock(lock, fcntl.LOCK_EX)
        path.mkdir(mode=0o700, exist_ok=True)  # another process may have taken it for abandoned ahead of the lock
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)
        os.close(lock)


def _remove_abandoned(folder: Path) -> None:
    """Removes the scratch folders of processes that were killed: nobody holds their locks."""
    for path in folder.glob(f"{SCRATCH}*"):
        with contextlib.suppress(OSError):
            lock = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(path, ignore_errors=True)
            finally:
                os.close(lock)


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()[:16]
