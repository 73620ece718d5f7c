"""Faster R-CNN on the features of a residual net, as in He et al. 2015, appendix A."""

import jax.numpy as jnp
from jax import Array

from resnet_jax.errors import UserError
from resnet_jax.models.detection.detector import Detector
from resnet_jax.models.resnet import ResNet
from resnet_jax.models.strides import output_strides


class FasterRCNN(Detector, ResNet):  # type: ignore[misc]  # one maps to detections, the other to logits
    """A residual net whose first stages see the image, and whose last stage sees each region that is proposed.

    Attributes:
      shared_stages: stages that see the image; None: all but the last.
    """

    shared_stages: int | None = None

    def __post_init__(self) -> None:
        if not 1 <= self.shared < len(self.stage_sizes):  # which the strides are looked up by
            raise UserError(f"shared_stages={self.shared_stages} must be from 1 to {len(self.stage_sizes) - 1}")
        super().__post_init__()

    @property
    def shared(self) -> int:
        """Returns the number of stages that see the image."""
        return len(self.stage_sizes) - 1 if self.shared_stages is None else self.shared_stages

    @property
    def strides(self) -> tuple[int, ...]:
        """Returns the pixels from one position of the shared features to the next, the one level."""
        return (output_strides(self)[self.shared - 1],)

    def image_features(self, images: Array, train: bool) -> tuple[Array, ...]:
        """Returns what the last of the shared stages gives, as the one level."""
        return (ResNet.__call__(self, images, train, (1, self.shared))[-1],)

    def see_regions(self, pooled: Array, train: bool) -> Array:
        """Returns what the other stages give of each region, averaged over its positions."""
        x = ResNet.__call__(self, pooled, train, (self.shared + 1, len(self.stage_sizes)))[-1]
        return jnp.mean(x.astype(jnp.float32), axis=(1, 2))
