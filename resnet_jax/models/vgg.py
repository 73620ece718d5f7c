"""VGG-16 and VGG-19 (Simonyan and Zisserman 2014, configurations D and E), which the papers compare with."""

from collections.abc import Sequence
from functools import partial

import jax.numpy as jnp
from flax import linen as nn
from flax.typing import Dtype
from jax import Array

from resnet_jax.errors import UserError, unknown_name
from resnet_jax.kernels import max_pool
from resnet_jax.models.layers import PRECISIONS, InitMode, conv, dense


class VGG(nn.Module):
    """Stages of 3x3 convolutions with bias, each ended by a 2x2 max-pool; three fully connected layers.

    Parameters are addressed by path: `stage2/conv1`, `fc1`, `fc2`, `head`. The first fully connected layer is
    as large as the last feature map: 7x7x512 inputs for 224 pixels.

    Attributes:
      stage_sizes: number of convolutions in each stage.
      widths: features of each stage.
      num_classes: outputs of the classifier; 0: none, and the net gives the features that one would get, float32.
      hidden: features of the two hidden fully connected layers.
      dropout: rate of dropout after each of them (needs an rng named "dropout" in training).
      init_mode: fan of He initialisation of the convolutions; fully connected layers go by fan-in.
      dtype: dtype of the computation; parameters are float32.
      precision: as in `ResNet`.

    Raises:
      UserError: at construction for fields that no net can have, at call for an image that five halvings leave nothing
        of.
    """

    stage_sizes: Sequence[int]
    widths: Sequence[int]
    num_classes: int = 1000
    hidden: int = 4096
    dropout: float = 0.5
    init_mode: InitMode = "fan_in"
    dtype: Dtype = jnp.float32
    precision: str = "default"

    def __post_init__(self) -> None:
        if len(self.stage_sizes) != len(self.widths) or not self.stage_sizes:
            raise UserError(f"stage_sizes {self.stage_sizes} and widths {self.widths} need one entry for each stage")
        if min(*self.stage_sizes, *self.widths, self.hidden) < 1 or self.num_classes < 0:
            raise UserError("stage_sizes, widths and hidden must be 1 or more, num_classes 1 or more, or 0 for none")
        if not 0 <= self.dropout < 1:
            raise UserError(f"dropout={self.dropout} must be in [0, 1)")
        if self.precision not in PRECISIONS:
            raise unknown_name("precision", self.precision, PRECISIONS)
        super().__post_init__()

    @property
    def task(self) -> str:
        """Returns what the net is for; see `ResNet.task`."""
        return "classification"

    @nn.compact
    def __call__(self, x: Array, train: bool = False, part: str | None = None) -> Array:
        """Maps images (batch, height, width, channels) to logits (batch, num_classes), float32.

        With `part`, x goes through that part of the net alone, as a detector needs it: "convolutions" are all of them,
        without the max-pool behind the last one; "hidden" are the two hidden layers, for the features behind that pool.
        """
        x = x.astype(self.dtype)
        if part != "hidden":
            pools = len(self.stage_sizes) - (part == "convolutions")
            if min(x.shape[1:3]) < 2**pools:
                raise UserError(
                    f"images of {x.shape[1]}x{x.shape[2]} are too small for VGG: {2**pools} pixels at least"
                )
            for i, (size, width) in enumerate(zip(self.stage_sizes, self.widths, strict=True), start=1):
                stage = VGGStage(size, width, i <= pools, self.init_mode, self.dtype, self.precision, name=f"stage{i}")
                x = stage(x)
        if part == "convolutions":
            return x
        x = x.reshape(x.shape[0], -1)
        for i in (1, 2):
            x = nn.relu(dense(self.hidden, self.dtype, f"fc{i}", self.precision)(x)).astype(self.dtype)
            x = nn.Dropout(self.dropout, deterministic=not train)(x)
        if part == "hidden" or not self.num_classes:
            return x.astype(jnp.float32)
        return dense(self.num_classes, jnp.float32, "head", self.precision)(x)


class VGGStage(nn.Module):
    """`size` 3x3 convolutions with bias and ReLU, then a 2x2 max-pool if `pool` is set."""

    size: int
    width: int
    pool: bool
    init_mode: InitMode
    dtype: Dtype
    precision: str

    @nn.compact
    def __call__(self, x: Array) -> Array:
        factory = partial(conv, init_mode=self.init_mode, dtype=self.dtype, precision=self.precision)
        for i in range(1, self.size + 1):
            x = nn.relu(factory(self.width, 3, use_bias=True, name=f"conv{i}")(x)).astype(self.dtype)
        return max_pool(x, 2, strides=2) if self.pool else x
