"""Faster R-CNN on the features of a residual net, as in He et al. 2015, appendix A."""

from collections.abc import Mapping
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax import Array

from resnet_jax.errors import UserError, unknown_name
from resnet_jax.models.detection.anchors import anchor_shapes, grid_anchors
from resnet_jax.models.detection.regions import Objects, Trained, detect, propose, train_anchors, train_regions
from resnet_jax.models.detection.roi import roi_align, roi_max_pool
from resnet_jax.models.layers import conv
from resnet_jax.models.resnet import ResNet
from resnet_jax.models.strides import stage_strides, stem_stride

#: Ways to take the features of a region.
POOLS = ("max", "align")


class Losses(NamedTuple):
    """Holds what the losses of a batch need.

    Attributes:
      anchors, regions: what is trained on, with a first axis for the images.
      objectness: (batch, anchors), logits of the anchors that were drawn.
      anchor_deltas: (batch, anchors, 4).
      logits: (batch, regions, 1 + classes).
      deltas: (batch, regions, 4), those of each region's own class.
    """

    anchors: Trained
    regions: Trained
    objectness: Array
    anchor_deltas: Array
    logits: Array
    deltas: Array


class FasterRCNN(ResNet):
    """A residual net whose first stages see the image, and whose last stage sees each region that is proposed.

    Its parameters are those of the `ResNet` by the same names, `rpn` (a 3x3 convolution, and two 1x1 for objects and
    boxes), `head` (the classes, background first) and `head_boxes`. So weights of a classifier fit it.

    The defaults are the values of the paper and of py-faster-rcnn (docs/fidelity.md has the sources).

    Attributes:
      shared_stages: stages that see the image; None: all but the last.
      anchor_sizes, anchor_ratios: see `anchors.anchor_shapes`.
      rpn_stride: positions of the shared features from one anchor's to the next.
      rpn_features: features of the RPN's 3x3 convolution.
      rpn_anchors: anchors of an image that a step is trained on.
      inside_anchors: whether anchors across the border are left out of training.
      rpn_threshold: of NMS among proposals.
      train_proposals, test_proposals: (anchors ahead of NMS, proposals behind it) in training and in testing.
      smallest_proposal: side in pixels.
      regions, foreground: regions of an image that a step is trained on, and the share of objects among them, at most.
      region_pool, region_size: "max" (RoI pooling) or "align" (RoIAlign), and its bins on a side, ahead of the last
        stage.
      nms_threshold, least_score, detections: of what is found in testing; see `regions.detect`.
    """

    shared_stages: int | None = None
    anchor_sizes: tuple[float, ...] = (128, 256, 512)
    anchor_ratios: tuple[float, ...] = (0.5, 1.0, 2.0)
    rpn_stride: int = 1
    rpn_features: int = 512
    rpn_anchors: int = 256
    inside_anchors: bool = True
    rpn_threshold: float = 0.7
    train_proposals: tuple[int, int] = (12_000, 2000)
    test_proposals: tuple[int, int] = (6000, 300)
    smallest_proposal: float = 16.0
    regions: int = 128
    foreground: float = 0.25
    region_pool: str = "max"
    region_size: int = 14
    nms_threshold: float = 0.3
    least_score: float = 0.05
    detections: int = 100

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.region_pool not in POOLS:
            raise unknown_name("region_pool", self.region_pool, POOLS)
        if not 1 <= self.shared < len(self.stage_sizes):
            raise UserError(f"shared_stages={self.shared_stages} must be from 1 to {len(self.stage_sizes) - 1}")
        numbers = (*self.anchor_sizes, *self.anchor_ratios, *self.train_proposals, *self.test_proposals, self.regions,
                   self.rpn_stride, self.rpn_features, self.rpn_anchors, self.region_size, self.detections)  # fmt: skip
        if min(numbers) <= 0:
            raise UserError("sizes, ratios, strides and numbers of anchors, proposals and regions must be above 0")

    @property
    def task(self) -> str:
        """Returns what the net is for."""
        return "detection"

    @property
    def shared(self) -> int:
        """Returns the number of stages that see the image."""
        return len(self.stage_sizes) - 1 if self.shared_stages is None else self.shared_stages

    @property
    def shared_stride(self) -> int:
        """Returns the pixels from one position of the shared features to the next."""
        stride = stem_stride(self)
        for own, _ in stage_strides(self)[: self.shared]:
            stride *= own
        return stride

    @nn.compact
    def __call__(self, x: Array | Mapping[str, Any], train: bool = False) -> Any:  # type: ignore[override]
        """Finds objects; in training it gives what the losses need instead.

        Args:
          x: images (batch, height, width, channels); or with `sizes`, int32 (batch, 2), their heights and widths
            without padding, {"images": ..., "sizes": ...}; in training also with `objects`, of `regions.Objects`. All
            have a first axis for the images.
          train: whether this is training, which needs an rng named "dropout" to draw anchors and regions by.

        Returns:
          `regions.Detections` with a first axis for the images; in training `Losses`.
        """
        images = x["images"] if isinstance(x, Mapping) else x
        batch, height, width, _ = images.shape
        sizes = x["sizes"] if isinstance(x, Mapping) else jnp.tile(jnp.array([height, width], jnp.int32), (batch, 1))
        features = super().__call__(images, train, (1, self.shared))[-1]

        anchors, objectness, anchor_deltas = self._rpn(features)
        before, after = self.train_proposals if train else self.test_proposals
        proposals = jax.vmap(partial(propose, anchors, before=before, after=after, threshold=self.rpn_threshold,
                                     smallest=self.smallest_proposal))(
            *jax.lax.stop_gradient((objectness, anchor_deltas)), sizes)  # fmt: skip
        if not train:
            logits, deltas = self._classify(features, proposals.boxes, train)
            find = partial(detect, threshold=self.nms_threshold, least=self.least_score, most=self.detections)
            return jax.vmap(find)(proposals, logits, deltas, sizes)

        assert isinstance(x, Mapping)
        objects: Objects = x["objects"]
        keys = jax.random.split(self.make_rng("dropout"), (2, batch))
        drawn = jax.vmap(
            lambda key, size, one: train_anchors(
                key, anchors, size, one, count=self.rpn_anchors, inside=self.inside_anchors
            )
        )(keys[0], sizes, objects)
        boxes, regions = jax.vmap(
            lambda key, proposed, one: train_regions(key, proposed, one, count=self.regions, share=self.foreground)
        )(keys[1], proposals, objects)
        logits, deltas = self._classify(features, boxes, train)
        take = jax.vmap(lambda values, indices: values[indices])
        own = jnp.take_along_axis(deltas, regions.labels[..., None, None], axis=2)[:, :, 0]
        return Losses(drawn, regions, take(objectness, drawn.indices), take(anchor_deltas, drawn.indices), logits, own)

    def _rpn(self, features: Array) -> tuple[Array, Array, Array]:
        """Returns the anchors (n, 4), the logit (batch, n) and the regression (batch, n, 4) of each."""
        shapes = anchor_shapes(self.anchor_sizes, self.anchor_ratios)
        logits, deltas = RPN(self.rpn_features, len(shapes), self.rpn_stride, self.dtype, name="rpn")(features)
        height, width = logits.shape[1:3]
        anchors = jnp.asarray(grid_anchors(height, width, self.shared_stride * self.rpn_stride, shapes))
        return anchors, logits.reshape(len(features), -1), deltas.reshape(len(features), -1, 4)

    def _classify(self, features: Array, boxes: Array, train: bool) -> tuple[Array, Array]:
        """Returns the logits (batch, n, 1 + classes) and the regression (batch, n, 1 + classes, 4) of regions."""
        pool = roi_align if self.region_pool == "align" else roi_max_pool
        pooled = jax.vmap(partial(pool, size=self.region_size, scale=1 / self.shared_stride))(features, boxes)
        pooled = pooled.reshape(-1, *pooled.shape[2:])
        x = super().__call__(pooled, train, (self.shared + 1, len(self.stage_sizes)))[-1]
        x = jnp.mean(x.astype(jnp.float32), axis=(1, 2))
        outputs = self.num_classes + 1
        logits = _dense(outputs, 0.01, "head")(x)
        deltas = _dense(4 * outputs, 0.001, "head_boxes")(x)
        return logits.reshape(*boxes.shape[:2], outputs), deltas.reshape(*boxes.shape[:2], outputs, 4)


class RPN(nn.Module):
    """The region proposal network: at each position, whether each of its anchors is an object, and its box.

    Attributes:
      features: of the 3x3 convolution.
      anchors: number of anchors at a position.
      strides: of the convolution.
      dtype: of the computation; outputs are float32.
    """

    features: int
    anchors: int
    strides: int
    dtype: Any

    @nn.compact
    def __call__(self, x: Array) -> tuple[Array, Array]:
        """Maps (batch, height, width, channels) to (batch, height, width, anchors) and (..., 4 * anchors)."""

        def layer(features: int, kernel_size: int, strides: int, name: str) -> nn.Conv:
            init = nn.initializers.normal(0.01)
            return conv(features, kernel_size, strides, dtype=self.dtype, use_bias=True, kernel_init=init, name=name)

        x = nn.relu(layer(self.features, 3, self.strides, "conv")(x)).astype(self.dtype)
        objectness, boxes = layer(self.anchors, 1, 1, "objectness")(x), layer(4 * self.anchors, 1, 1, "boxes")(x)
        return objectness.astype(jnp.float32), boxes.astype(jnp.float32)


def _dense(features: int, deviation: float, name: str) -> nn.Dense:
    return nn.Dense(features, kernel_init=nn.initializers.normal(deviation), name=name)
