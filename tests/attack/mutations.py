"""Files of weights and images, small and whole, and random damage to them."""

import io
import random
from collections.abc import Callable
from pathlib import Path

import numpy as np
from flax import serialization
from PIL import Image
from safetensors.numpy import save as safetensors_bytes

from tests.interop.torch_made import legacy, pickled, tensor, zipped

#: What makes a pickle longer without making the file so: marks, memos, calls, copies, collections.
OPCODES = b"(0.2ue]})l\x81\x85\x86\x87Rbqhrj\x94tdsca"

STORAGE = np.arange(24, dtype=np.float32)


def _pickle() -> bytes:
    tensors = {f"layer{i}.weight": tensor("FloatStorage", "0", 24, i, (2, 5), (12, 2)) for i in range(3)}
    return pickled({"state_dict": tensors, "epoch": 3})


def weights(folder: Path) -> dict[str, tuple[bytes, Callable[[Path, bytes], None]]]:
    """Returns files by their kind: the bytes that are mutated, and how a file is made of them."""

    def as_they_are(path: Path, data: bytes) -> None:
        path.write_bytes(data)

    def in_a_zip(path: Path, data: bytes) -> None:  # whose checksum of the pickle is right
        zipped(path, None, {"0": STORAGE.tobytes()}, raw=data)

    value = {"a.weight": tensor("FloatStorage", "0", 24, 0, (4, 6), (6, 1))}
    arrays = {"conv/kernel": STORAGE.reshape(4, 6), "bias": STORAGE[:3]}
    return {
        "pickle": (_pickle(), in_a_zip),
        "zip": (zipped(folder / "seed", value, {"0": STORAGE.tobytes()}).read_bytes(), as_they_are),
        "legacy pickle": (legacy(folder / "seed", value, {"0": STORAGE}).read_bytes(), as_they_are),
        "safetensors": (safetensors_bytes(arrays), as_they_are),
        "msgpack": (serialization.msgpack_serialize({"params": arrays}), as_they_are),
    }


def images() -> dict[str, bytes]:
    """Returns small images by their format."""
    pixels = np.random.default_rng(0).integers(0, 256, (24, 32, 3)).astype(np.uint8)
    found = {}
    for kind in ("JPEG", "PNG", "GIF", "BMP", "TIFF", "WEBP", "PPM", "TGA", "ICO"):
        stream = io.BytesIO()
        Image.fromarray(pixels).save(stream, kind)
        found[kind] = stream.getvalue()
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "JPEG", progressive=True)
    return found | {"progressive JPEG": stream.getvalue()}


def mutated(rng: random.Random, data: bytes) -> bytes:
    """Returns the bytes after one to four random changes."""
    found = bytearray(data)
    for _ in range(rng.randint(1, 4)):
        at = rng.randrange(len(found) + 1)
        end = min(len(found), at + rng.choice((1, 2, 4, 8, 64)))
        kind = rng.randrange(7)
        if kind == 0 and at < len(found):
            found[at] ^= 1 << rng.randrange(8)
        elif kind == 1:
            found[at:end] = rng.choice((b"\0", b"\xff", b"\x7f")) * (end - at)
        elif kind == 2:  # a size, of either byte order
            size = rng.choice((2**16 - 1, 40_000, 2**31 - 1, 2**32 - 1, 2**62, rng.randrange(2**32)))
            length = 4 if size < 2**32 else 8
            found[at : at + length] = size.to_bytes(length, rng.choice(("little", "big")))
        elif kind == 3:
            del found[at : rng.choice((end, len(found)))]
        elif kind == 4:
            found[at:at] = rng.randbytes(rng.randint(1, 8))
        elif kind == 5:
            found[at:at] = bytes(found[at:end]) * rng.choice((1, 10, 1000))
        else:
            found[at:at] = bytes(rng.choice(OPCODES) for _ in range(rng.randint(1, 6))) * rng.choice((1, 100))
    return bytes(found)
