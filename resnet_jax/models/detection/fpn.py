"""Faster R-CNN on a feature pyramid (Lin et al. 2017, arXiv 1612.03144), as torchvision has it."""

from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp
from flax import linen as nn
from jax import Array

from resnet_jax.errors import UserError
from resnet_jax.models.detection.detector import Detector, pad_to_multiple
from resnet_jax.models.layers import conv, precision_of
from resnet_jax.models.resnet import ResNet
from resnet_jax.models.strides import output_strides, total_stride

#: Of layers that are not pre-trained: uniform with variance 1 / fan-in (Caffe2's XavierFill, in Detectron).
_INIT = nn.initializers.variance_scaling(1.0, "fan_in", "uniform")


class FPN(nn.Module):
    """Gives each stage's positions features that know of all coarser stages (Lin et al. 2017, section 3).

    Attributes:
      features: of each level.
      dtype: of the computation.
      precision: as in `ResNet`.
    """

    features: int
    dtype: Any
    precision: str

    @nn.compact
    def __call__(self, stages: Sequence[Array]) -> tuple[Array, ...]:
        """Maps the stages' outputs, the finest first, to as many levels and one of twice the last one's stride."""

        def layer(x: Array, kernel_size: int, name: str) -> Array:
            made = conv(self.features, kernel_size, dtype=self.dtype, precision=self.precision, use_bias=True,
                        kernel_init=_INIT, name=name)  # fmt: skip
            return made(x).astype(self.dtype)

        levels: list[Array] = []
        above: Array | None = None
        for number in range(len(stages), 0, -1):
            lateral = layer(stages[number - 1], 1, f"lateral{number}")
            above = lateral if above is None else lateral + _enlarged(above, lateral.shape)
            levels.insert(0, layer(above, 3, f"output{number}"))
        return (*levels, levels[-1][:, ::2, ::2])  # a max-pool over single positions


def _enlarged(x: Array, shape: tuple[int, ...]) -> Array:
    """Repeats positions, up to the height and width of a finer level, which are multiples of x's."""
    for axis in (1, 2):
        x = jnp.repeat(x, shape[axis] // x.shape[axis], axis=axis)
    return x


class RegionHead(nn.Module):
    """Two fully connected layers on all positions of a region.

    Attributes:
      features: of both.
      dtype: of the computation; the output is float32.
      precision: as in `ResNet`.
    """

    features: int
    dtype: Any
    precision: str

    @nn.compact
    def __call__(self, x: Array) -> Array:
        """Maps (n, size, size, channels) to (n, features)."""

        def layer(axes: tuple[int, ...], name: str) -> nn.DenseGeneral:
            return nn.DenseGeneral(self.features, axes, dtype=self.dtype, precision=precision_of(self.precision),
                                   kernel_init=_INIT, name=name)  # fmt: skip

        x = layer((-1,), "fc2")(nn.relu(layer((-3, -2, -1), "fc1")(x)))
        return nn.relu(x).astype(jnp.float32)


class FPNDetector(Detector, ResNet):  # type: ignore[misc]  # one maps to detections, the other to logits
    """A residual net all of which sees the image; a pyramid on its stages; two fully connected layers for a region.

    Its parameters are the residual net's, `fpn`, `rpn`, `region_head`, `head` and `head_boxes`. Images are padded
    to multiples of the last stage's stride, at the bottom and on the right.

    Attributes:
      finest_stage: the first stage that has a level, from 1.
      fpn_features: of each level.
      head_features: of the two fully connected layers.
    """

    finest_stage: int = 1
    fpn_features: int = 256
    head_features: int = 1024

    def __post_init__(self) -> None:
        if not 1 <= self.finest_stage <= len(self.stage_sizes):
            raise UserError(f"finest_stage={self.finest_stage} must be from 1 to {len(self.stage_sizes)}")
        if min(self.fpn_features, self.head_features) < 1:
            raise UserError("fpn_features and head_features must be 1 or more")
        super().__post_init__()

    @property
    def region_strides(self) -> tuple[int, ...]:
        """Returns the strides of the stages that have a level."""
        return output_strides(self)[self.finest_stage - 1 :]

    @property
    def strides(self) -> tuple[int, ...]:
        """Returns those of the stages, and that of the level which proposes alone."""
        return (*self.region_strides, 2 * self.region_strides[-1])

    @property
    def side_multiple(self) -> int:
        """Returns the stride of the last stage, to whose multiples images are padded."""
        return total_stride(self)

    def image_features(self, images: Array, train: bool) -> tuple[Array, ...]:
        """Returns the levels of the pyramid."""
        images = pad_to_multiple(images, self.side_multiple)
        stages = ResNet.__call__(self, images, train, (1, len(self.stage_sizes)))
        assert isinstance(stages, tuple)
        return FPN(self.fpn_features, self.dtype, self.precision, name="fpn")(stages[self.finest_stage - 1 :])

    def see_regions(self, pooled: Array, train: bool) -> Array:
        """Returns what two fully connected layers make of all positions of each region."""
        return RegionHead(self.head_features, self.dtype, self.precision, name="region_head")(pooled)
