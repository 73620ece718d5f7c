"""Weights and images that are the same wherever they are made: drawn by a generator that name and shape seed."""

import hashlib
import math
from collections.abc import Iterable, Mapping

import numpy as np

#: Values of a feature map that a fixture keeps.
SAMPLES = 64


def generator(text: str) -> np.random.Generator:
    """Of Philox, whose stream is the same on every platform and in every version of NumPy."""
    return np.random.Generator(np.random.Philox(int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big")))


def tensor(name: str, shape: tuple[int, ...]) -> np.ndarray:
    """A PyTorch tensor of a state dict, float32, whose name says what it is; batch statistics are random as well.

    Scales have both signs: with positive ones alone, a max-pool ahead of BN and ReLU is the same as one behind them.
    """
    if name.endswith("num_batches_tracked"):
        return np.zeros((), np.int64)
    rng = generator(f"{name} {tuple(shape)}")
    if name.endswith("running_var"):
        values = rng.uniform(0.5, 1.5, shape)
    elif len(shape) > 1:
        values = rng.normal(0, math.sqrt(2 / math.prod(shape[1:])), shape)
    elif name.endswith("weight"):
        values = rng.normal(0.7, 0.5, shape)
    else:
        values = rng.normal(0, 0.2, shape)
    return values.astype(np.float32)


def state_dict(shapes: Mapping[str, tuple[int, ...]]) -> dict[str, np.ndarray]:
    """All tensors of a net."""
    return {name: tensor(name, tuple(shape)) for name, shape in shapes.items()}


def names_hash(shapes: Mapping[str, tuple[int, ...]]) -> str:
    """Of all names with their shapes."""
    lines = "\n".join(f"{name} {tuple(shapes[name])}" for name in sorted(shapes))
    return hashlib.sha256(lines.encode()).hexdigest()


def images(size: int, count: int = 2) -> np.ndarray:
    """Float32 images (count, size, size, 3), normal."""
    return generator(f"images {count} {size}").normal(0, 1, (count, size, size, 3)).astype(np.float32)


def picture_bytes(count: int = 8) -> np.ndarray:
    """uint8 pictures (count, 32, 32, 3): smooth ones, as logits of noise all look alike."""
    coarse = generator("pictures").integers(0, 256, (count, 4, 4, 3))
    return np.repeat(np.repeat(coarse, 8, axis=1), 8, axis=2).astype(np.uint8)


def short(value: float) -> float:
    """With seven digits, as many as float32 has."""
    return float(f"{value:.7g}")


def summary(features: np.ndarray) -> dict[str, list[float] | float | list[int]]:
    """Of a feature map (count, height, width, channels): shape, mean, deviation, and values at fixed places."""
    flat = np.asarray(features, np.float64).ravel()
    places = generator(f"places {features.shape}").integers(0, flat.size, SAMPLES)
    return {
        "shape": list(features.shape), "mean": short(flat.mean()), "std": short(flat.std()),
        "values": [short(value) for value in flat[places]],
    }  # fmt: skip


def differences(found: np.ndarray, recorded: Mapping[str, object]) -> float:
    """The largest difference of what `summary` has, in deviations of the recorded feature map.

    Python's `max` passes over a NaN that does not come first, so that none may be among them.
    """
    assert list(found.shape) == recorded["shape"] and np.isfinite(found).all()
    mine = summary(found)
    pairs: Iterable[tuple[float, float]] = [
        *((mine[k], recorded[k]) for k in ("mean", "std")), *zip(mine["values"], recorded["values"], strict=True),
    ]  # type: ignore[assignment, arg-type]  # fmt: skip
    return max(abs(a - b) for a, b in pairs) / float(recorded["std"])  # type: ignore[arg-type]
