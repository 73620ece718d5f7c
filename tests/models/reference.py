"""NumPy references in float64, written from the papers' formulas: nothing here imports the package's layers."""

import jax
import numpy as np
from flax import traverse_util

EPSILON = 1e-5


def conv2d(x, kernel, strides=1, padding=None):
    """Correlation of (batch, height, width, in) with (k, k, in, out), `padding` zeros on all sides ((k - 1) / 2)."""
    size = kernel.shape[0]
    pad = (size - 1) // 2 if padding is None else padding
    x = np.pad(np.asarray(x, np.float64), ((0, 0), (pad, pad), (pad, pad), (0, 0)))
    height = (x.shape[1] - size) // strides + 1
    width = (x.shape[2] - size) // strides + 1
    out = np.zeros((x.shape[0], height, width, kernel.shape[-1]))
    for i in range(size):
        for j in range(size):
            rows = slice(i, i + strides * (height - 1) + 1, strides)
            columns = slice(j, j + strides * (width - 1) + 1, strides)
            out += x[:, rows, columns, :] @ np.asarray(kernel[i, j], np.float64)
    return out


def max_pool(x, size, strides, padding):
    """Maximum over windows; positions outside the image never win."""
    pad = ((0, 0), (padding, padding), (padding, padding), (0, 0))
    x = np.pad(np.asarray(x, np.float64), pad, constant_values=-np.inf)
    height = (x.shape[1] - size) // strides + 1
    width = (x.shape[2] - size) // strides + 1
    out = np.empty((x.shape[0], height, width, x.shape[3]))
    for row in range(height):
        for column in range(width):
            top, left = row * strides, column * strides
            out[:, row, column] = x[:, top : top + size, left : left + size].max(axis=(1, 2))
    return out


def relu(x):
    return np.maximum(x, 0)


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def normalise(x, mean, var, scale, bias):
    """Ioffe and Szegedy 2015, algorithm 1, last two lines."""
    return scale * (x - mean) / np.sqrt(var + EPSILON) + bias


def moments(x):
    """Mean and biased variance of each channel, over everything else."""
    axes = tuple(range(x.ndim - 1))
    mean = x.mean(axis=axes)
    return mean, ((x - mean) ** 2).mean(axis=axes)


def batch_norm(x, scale, bias):
    """Batch norm in training, over all examples of x."""
    x = np.asarray(x, np.float64)
    return normalise(x, *moments(x), scale, bias)


def option_a(x, strides, channels):
    """Identity with stride, missing channels filled with zeros: half of them before, half after."""
    x = np.asarray(x, np.float64)[:, ::strides, ::strides]
    out = np.zeros((*x.shape[:3], channels))
    start = (channels - x.shape[3]) // 2
    out[..., start : start + x.shape[3]] = x
    return out


def images(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def random_variables(model, *args, seed=1, **kwargs):
    """Variables of the right names and shapes with values that no initialiser gives, so that each one matters."""
    keys = {"params": jax.random.key(0), "dropout": jax.random.key(0)}
    shapes = jax.eval_shape(lambda: model.init(keys, *args, **kwargs))
    rng = np.random.default_rng(seed)

    def value(path, shape):
        name = path[-1]
        if name == "kernel":
            return rng.normal(size=shape) / np.sqrt(np.prod(shape[:-1]))
        if name in ("scale", "var"):
            return rng.uniform(0.5, 2.0, shape)
        assert name in ("bias", "mean"), path
        return rng.normal(size=shape) * 0.5

    flat = {
        path: value(path, leaf.shape).astype(np.float32) for path, leaf in traverse_util.flatten_dict(shapes).items()
    }
    return traverse_util.unflatten_dict(flat)


class Weights:
    """Variables of a net addressed by path, as operations on NumPy arrays.

    With `train`, batch norm takes the statistics of its batch, else those of `batch_stats`.
    """

    def __init__(self, variables, train=False):
        self.params = traverse_util.flatten_dict(variables["params"], sep="/")
        self.stats = traverse_util.flatten_dict(variables.get("batch_stats", {}), sep="/")
        self.train = train
        self.used = set()

    def param(self, path):
        self.used.add(path)
        return np.asarray(self.params[path], np.float64)

    def conv(self, path, x, strides=1):
        y = conv2d(x, self.param(f"{path}/kernel"), strides)
        return y + self.param(f"{path}/bias") if f"{path}/bias" in self.params else y

    def bn(self, path, x):
        scale, bias = self.param(f"{path}/scale"), self.param(f"{path}/bias")
        if self.train:
            return batch_norm(x, scale, bias)
        return normalise(x, np.float64(self.stats[f"{path}/mean"]), np.float64(self.stats[f"{path}/var"]), scale, bias)

    def dense(self, path, x):
        return x @ self.param(f"{path}/kernel") + self.param(f"{path}/bias")

    def assert_all_used(self):
        """The net has no parameter that the reference did not need."""
        assert self.used == set(self.params)


def assert_close(actual, expected, tolerance=1e-5):
    """Equal up to `tolerance` of the largest expected entry: float32 against float64."""
    actual, expected = np.asarray(actual, np.float64), np.asarray(expected, np.float64)
    assert actual.shape == expected.shape
    assert np.isfinite(actual).all()
    error, size = np.abs(actual - expected).max(), np.abs(expected).max()
    assert size > 0.01, "a reference that vanishes proves nothing"
    assert error <= tolerance * size, f"largest error {error:.3g} where the largest entry is {size:.3g}"
