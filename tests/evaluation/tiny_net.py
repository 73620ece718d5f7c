"""A net whose forward pass is written out in NumPy as well."""

import numpy as np
from flax import linen as nn


class TinyNet(nn.Module):
    """3x3 convolution, ReLU, global average, classifier: small enough for NumPy, fully convolutional as ResNets are."""

    @nn.compact
    def __call__(self, x, train=False):
        x = nn.relu(nn.Conv(6, (3, 3), padding=1, use_bias=False, name="conv")(x))
        return nn.Dense(7, name="head")(x.mean(axis=(1, 2)))


def numpy_scores(variables, images):
    """The same net by loops over the kernel, its softmax, over the class map that a 1x1 classifier gives."""
    kernel, head = (variables["params"][k] for k in ("conv", "head"))
    kernel, images = np.float64(kernel["kernel"]), np.float64(images)
    height, width = images.shape[1:3]
    padded = np.pad(images, ((0, 0), (1, 1), (1, 1), (0, 0)))
    out = sum(padded[:, i : i + height, j : j + width] @ kernel[i, j] for i in range(3) for j in range(3))
    class_map = np.maximum(out, 0) @ np.float64(head["kernel"]) + np.float64(head["bias"])
    powers = np.exp(class_map.mean(axis=(1, 2)))
    return powers / powers.sum(axis=1, keepdims=True)
