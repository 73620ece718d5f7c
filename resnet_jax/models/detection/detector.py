"""Faster R-CNN on any features (Ren et al. 2015): proposals, their classes and boxes, what both are trained on."""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax import Array

from resnet_jax.models.detection.anchors import anchor_shapes, grid_anchors
from resnet_jax.models.detection.field_checks import check_detector
from resnet_jax.models.detection.pyramid import nearest_pair
from resnet_jax.models.detection.regions import (
    Boxes,
    Objects,
    Predictions,
    Trained,
    predict,
    propose,
    select,
    train_anchors,
    train_regions,
)
from resnet_jax.models.detection.roi_levels import pool_levels
from resnet_jax.models.detection.rpn import RPN
from resnet_jax.models.layers import precision_of


class Losses(NamedTuple):
    """Holds what the losses of a batch need.

    Attributes:
      anchors, regions: what is trained on, with a first axis for the images.
      objectness: (batch, anchors), logits of the anchors that were drawn.
      anchor_deltas: (batch, anchors, 4).
      logits: (batch, regions, 1 + classes).
      deltas: (batch, regions, 4), those of each region's own class.
      region_beta: see `Detector`.
    """

    anchors: Trained
    regions: Trained
    objectness: Array
    anchor_deltas: Array
    logits: Array
    deltas: Array
    region_beta: float


class View(NamedTuple):
    """Holds what the net sees of a batch of images at one size.

    Attributes:
      features: of `Detector.image_features`.
      scales: (batch, 2), factors on the heights and widths of regions at this size.
    """

    features: Any
    scales: Array


class Detector(nn.Module):
    """Finds objects: a subclass says what sees the image (`image_features`) and what sees a region (`see_regions`).

    The image is seen at one or more levels, the finest first. All of them propose regions, by one RPN, and each region
    is pooled from one of them.

    Its parameters are those of the subclass's net by the same names, `rpn` (a 3x3 convolution, and two 1x1 for objects
    and boxes), `head` (the classes, background first) and `head_boxes`. So weights of a classifier fit it.

    The defaults are the values of the paper and of py-faster-rcnn (docs/fidelity.md has the sources).

    Attributes:
      num_classes: classes of objects, without the background.
      anchor_sizes, anchor_ratios: see `anchors.anchor_shapes`. Levels share the sizes out among them, the finest has
        the first.
      anchor_grid: how they lie, "caffe" or "torchvision"; see `anchors.grid_anchors`.
      rpn_stride: positions of the shared features from one anchor's to the next.
      rpn_features: features of the RPN's 3x3 convolution.
      rpn_anchors: anchors of an image that a step is trained on.
      inside_anchors: whether anchors across the border are left out of training.
      rpn_threshold: of NMS among proposals.
      train_proposals, test_proposals: (anchors ahead of NMS, proposals behind it) in training and in testing.
      smallest_proposal: side in pixels.
      regions, foreground: regions of an image that a step is trained on, and the share of objects among them, at most.
      region_beta: where the smooth L1 loss of a region's box turns from a square into a line.
      region_pool, region_size: "max" (RoI pooling), "align" (RoIAlign) or "align_v1" (RoIAlign as it first was;
        see `roi_levels.POOLS`), and its bins on a side.
      context: whether the whole image is seen as a region, too, whose features stand beside those of each region ahead
        of the classes and boxes (He et al. 2015, appendix B, "global context").
      nms_threshold, least_score, detections: of what is found in testing; see `regions.select`.
    """

    num_classes: int = 20
    anchor_sizes: tuple[float, ...] = (128, 256, 512)
    anchor_ratios: tuple[float, ...] = (0.5, 1.0, 2.0)
    anchor_grid: str = "caffe"
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
    region_beta: float = 1.0
    region_pool: str = "max"
    region_size: int = 14
    context: bool = False
    nms_threshold: float = 0.3
    least_score: float = 0.05
    detections: int = 100

    def __post_init__(self) -> None:
        super().__post_init__()
        check_detector(self)

    @property
    def task(self) -> str:
        """Returns what the net is for."""
        return "detection"

    @property
    def strides(self) -> tuple[int, ...]:
        """Returns the pixels from one position of each level to the next."""
        raise NotImplementedError

    @property
    def region_strides(self) -> tuple[int, ...]:
        """Returns the strides of the levels that regions are pooled from, the finest ones."""
        return self.strides

    @property
    def side_multiple(self) -> int:
        """Returns what the sides of a batch of images are rounded up to, so that images of many sizes share few."""
        return 64

    @property
    def classified_side(self) -> int:
        """Returns the side of the images that such a net is trained on as a classifier, in pixels."""
        return 32 if getattr(self, "stem", "imagenet") == "cifar" else 224

    def image_features(self, images: Array, train: bool) -> tuple[Array, ...]:
        """Returns the features of images at each level, (batch, height, width, channels)."""
        raise NotImplementedError

    def see_regions(self, pooled: Array, train: bool) -> Array:
        """Returns a float32 vector for each region: (n, size, size, channels) to (n, features)."""
        raise NotImplementedError

    @nn.compact
    def __call__(self, x: Any, train: bool = False, part: str | None = None) -> Any:
        """Finds objects; in training it gives what the losses need instead.

        Args:
          x: images (batch, height, width, channels); or with `sizes`, int32 (batch, 2), their heights and widths
            without padding, {"images": ..., "sizes": ...}; in training also with `objects`, of `regions.Objects`. With
            `proposals`, of `regions.Boxes`, these are the regions that are seen, instead of the net's own. All have a
            first axis for the images.
          train: whether this is training, which needs an rng named "dropout" to draw anchors and regions by.
          part: a method that is called instead, with the arguments x: "propose_regions", "image_features" or
            "predict_regions". Tests by several nets or at several sizes are made of them.

        Returns:
          `regions.Detections` with a first axis for the images; in training `Losses`.
        """
        if part is not None:
            return getattr(self, part)(*x)
        images = x["images"] if isinstance(x, Mapping) else x
        batch, height, width, _ = images.shape
        sizes = x["sizes"] if isinstance(x, Mapping) else jnp.tile(jnp.array([height, width], jnp.int32), (batch, 1))
        given: Boxes | None = x.get("proposals") if isinstance(x, Mapping) else None
        if not train:
            features, own_proposals = self.propose_regions(images, sizes)
            proposals = own_proposals if given is None else given
            predictions = self.predict_regions([View(features, jnp.ones((batch, 2)))], proposals, sizes)
            choose = partial(select, threshold=self.nms_threshold, least=self.least_score, most=self.detections)
            with jax.named_scope("detections"):
                return jax.vmap(choose)(predictions)

        features = self.image_features(images, train)
        by_level = self._rpn(features)
        own_proposals = self._propose(by_level, sizes, self.train_proposals)
        proposals = own_proposals if given is None else given
        assert isinstance(x, Mapping)
        objects: Objects = x["objects"]
        anchors = jnp.concatenate(by_level[0])
        objectness, anchor_deltas = (jnp.concatenate(values, axis=1) for values in by_level[1:])
        keys = jax.random.split(self.make_rng("dropout"), (2, batch))
        with jax.named_scope("sampling"):
            drawn = jax.vmap(
                lambda key, size, one: train_anchors(
                    key, anchors, size, one, count=self.rpn_anchors, inside=self.inside_anchors
                )
            )(keys[0], sizes, objects)
            boxes, regions = jax.vmap(
                lambda key, proposed, one: train_regions(key, proposed, one, count=self.regions, share=self.foreground)
            )(keys[1], proposals, objects)
        pooled = self._pool(features, self._looked_at(boxes, sizes))
        logits, deltas = self._classify(self._see(pooled, train))
        take = jax.vmap(lambda values, indices: values[indices])
        own = jnp.take_along_axis(deltas, regions.labels[..., None, None], axis=2)[:, :, 0]
        return Losses(drawn, regions, take(objectness, drawn.indices), take(anchor_deltas, drawn.indices), logits, own,
                      self.region_beta)  # fmt: skip

    def propose_regions(self, images: Array, sizes: Array, counts: tuple[int, int] | None = None
                        ) -> tuple[Any, Boxes]:  # fmt: skip
        """Returns the shared features of images, and regions of each.

        Args:
          images: (batch, height, width, channels).
          sizes: int32 (batch, 2), their heights and widths without padding.
          counts: how many regions ahead of NMS and behind it, at most; None: `test_proposals`.
        """
        features = self.image_features(images, False)
        return features, self._propose(self._rpn(features), sizes, counts or self.test_proposals)

    def predict_regions(self, views: Sequence[View], regions: Boxes, sizes: Array) -> Predictions:
        """Predicts the classes and boxes of regions of images.

        Args:
          views: what the net sees of the images; at several sizes, the smallest first. Of these, the two at which a
            region is nearest to `classified_side` are merged by maxout: of its features, the larger ones count.
          regions: of the images.
          sizes: int32 (batch, 2), heights and widths of the images in which the regions are.
        """
        boxes = self._looked_at(regions.boxes, sizes)
        pooled = [self._pool(view.features, boxes * jnp.tile(view.scales[:, None, ::-1], 2)) for view in views]
        if len(views) > 1:
            scales = jnp.stack([view.scales for view in views], axis=1)
            first = jax.vmap(partial(nearest_pair, side=self.classified_side))(boxes, scales)[..., None, None, None]
            smaller = jnp.select([first == k for k in range(len(views))], pooled)
            larger = jnp.select([first + 1 == k for k in range(len(views))], pooled)
            x = jnp.maximum(*jnp.split(self._see(jnp.concatenate([smaller, larger]), False), 2))
        else:
            x = self._see(pooled[0], False)
        return jax.vmap(predict)(regions, *self._classify(x), sizes)

    def _propose(
        self, by_level: tuple[list[Array], list[Array], list[Array]], sizes: Array, counts: tuple[int, int]
    ) -> Boxes:
        anchors, *predicted = by_level
        logits, deltas = jax.lax.stop_gradient(predicted)
        find = partial(propose, anchors, before=counts[0], after=counts[1], threshold=self.rpn_threshold,
                       smallest=self.smallest_proposal)  # fmt: skip
        with jax.named_scope("proposals"):
            return jax.vmap(find)(logits, deltas, sizes)

    def _rpn(self, features: tuple[Array, ...]) -> tuple[list[Array], list[Array], list[Array]]:
        """Returns of each level the anchors (n, 4), the logit (batch, n) and the regression (batch, n, 4) of each."""
        share = len(self.anchor_sizes) // len(features)
        rpn = RPN(self.rpn_features, share * len(self.anchor_ratios), self.rpn_stride, self.dtype, self.precision,
                  name="rpn")  # fmt: skip
        anchors, logits, deltas = [], [], []
        for level, x in enumerate(features):
            shapes = anchor_shapes(self.anchor_sizes[level * share : (level + 1) * share], self.anchor_ratios)
            objectness, boxes = rpn(x)
            height, width = objectness.shape[1:3]
            strides = (self.strides[level] * self.rpn_stride,) * 2
            if self.anchor_grid == "torchvision":
                # 13 positions on a side of 800 pixels are 61 pixels apart there, though the net's stride is 64.
                rows, columns = (positions * self.strides[0] for positions in features[0].shape[1:3])
                strides = rows // height, columns // width
            anchors.append(jnp.asarray(grid_anchors(height, width, strides, shapes, self.anchor_grid)))
            logits.append(objectness.reshape(len(x), -1))
            deltas.append(boxes.reshape(len(x), -1, 4))
        return anchors, logits, deltas

    def _pool(self, features: tuple[Array, ...], boxes: Array) -> Array:
        """Returns the features in the bins of regions, (batch, n, size, size, channels)."""
        pool = partial(pool_levels, kind=self.region_pool, size=self.region_size, strides=self.region_strides,
                       precision=precision_of(self.precision))  # fmt: skip
        with jax.named_scope("region_pool"):
            return jax.vmap(pool)(features[: len(self.region_strides)], boxes)

    def _looked_at(self, boxes: Array, sizes: Array) -> Array:
        """Returns the regions (batch, n, 4) and, with `context`, the whole image behind them."""
        if not self.context:
            return boxes
        whole = jnp.concatenate([jnp.zeros_like(sizes), sizes[:, ::-1]], axis=-1)
        return jnp.concatenate([boxes, whole[:, None].astype(boxes.dtype)], axis=1)

    def _see(self, pooled: Array, train: bool) -> Array:
        """Returns the vectors of regions, (batch, n, features)."""
        return self.see_regions(pooled.reshape(-1, *pooled.shape[2:]), train).reshape(*pooled.shape[:2], -1)

    def _classify(self, x: Array) -> tuple[Array, Array]:
        """Returns the logits (batch, n, 1 + classes) and the regression (batch, n, 1 + classes, 4) of vectors.

        With `context` the last vector of each image is that of the whole image.
        """
        if self.context:
            x = jnp.concatenate([x[:, :-1], jnp.broadcast_to(x[:, -1:], x[:, :-1].shape)], axis=-1)
        outputs = self.num_classes + 1
        logits = _dense(outputs, 0.01, self.precision, "head")(x)
        deltas = _dense(4 * outputs, 0.001, self.precision, "head_boxes")(x)
        return logits, deltas.reshape(*x.shape[:2], outputs, 4)


def pad_to_multiple(images: Array, multiple: int) -> Array:
    """Pads images (batch, height, width, channels) with zeros at the bottom and on the right."""
    padding = [(0, -side % multiple) for side in images.shape[1:3]]
    return jnp.pad(images, ((0, 0), *padding, (0, 0)))


def _dense(features: int, deviation: float, precision: str, name: str) -> nn.Dense:
    init = nn.initializers.normal(deviation)
    return nn.Dense(features, precision=precision_of(precision), kernel_init=init, name=name)
