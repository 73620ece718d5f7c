"""The net of both papers: a stem, stages of residual units, a classifier. A net is a row of values, not a class."""

from collections.abc import Sequence
from functools import partial

import jax.numpy as jnp
from flax import linen as nn
from flax.typing import Dtype
from jax import Array

from resnet_jax.kernels import max_pool
from resnet_jax.models import layers
from resnet_jax.models.blocks import ORDERS, Stage, Unit, apply_order
from resnet_jax.models.field_checks import check_fields
from resnet_jax.models.heads import segment
from resnet_jax.models.layers import InitMode, Padding, average_pool, dense
from resnet_jax.models.norm import BatchNorm
from resnet_jax.models.shortcuts import Shortcut
from resnet_jax.models.strides import stage_strides


class ResNet(nn.Module):
    """A residual or plain net (He et al. 2015, section 3.3 and 4.2; He et al. 2016).

    Parameters and features are addressed by path: `stem/conv`, `stage2/block1/conv1`, `stage2/block1/bn1`,
    `stage2/block1/shortcut/conv`, `final/bn`, `head`.

    Attributes:
      stage_sizes: number of units in each stage.
      widths: width of each stage; a bottleneck ends in four times as many features.
      block: "basic", "bottleneck" or "single".
      groups, width_per_group: the 3x3 convolution of a bottleneck of width 64 has so many groups of so many features,
        that of other widths in proportion, as in torchvision (Xie et al. 2017, "ResNeXt").
      stem_width: features of the stem; None: the first stage's width.
      unit_dropout: rate of dropout between the two 3x3 convolutions of a basic unit (Zagoruyko and Komodakis 2016,
        "Wide residual networks", section 2.4).
      stem: "imagenet" (7x7/2 convolution, 3x3/2 max-pool) or "cifar" (3x3 convolution).
      num_classes: outputs of the classifier; 0: there is none, and the net gives the average pool's features.
      shortcut: a key of `shortcuts.SHORTCUTS`; "none" makes the net plain.
      activation: a key of `blocks.ORDERS`.
      stride_on: layer of a bottleneck that strides: "1x1" as in the paper, "3x3" for "v1.5".
      zero_init_last: start the scale of each residual's last batch norm at zero (Goyal et al. 2017, 5.1).
      init_mode: fan of He initialisation: "fan_in" (Caffe's) or "fan_out" (the authors' later Torch code).
      bn_group_size: examples that share batch statistics; 0 for the whole batch over all devices.
      shortcut_scale, residual_scale: constants of the shortcut "constant_scaling".
      gate_bias: initial bias of the gates of "exclusive_gating" and "shortcut_only_gating".
      shortcut_dropout: rate of the shortcut "dropout".
      shortcut_zeros: where option A adds channels: half on each of the "sides", or all at the "end".
      stem_norm: BN and ReLU in the stem, as the first unit's pre-activation ahead of its fork and of the max-pool
        (2016, section 4.1). Without, the first unit has its own like any other, as in timm.
      norm_epsilon: what batch norm adds to variances; torchvision's published detectors have 0.
      padding: "symmetric" as in the papers; "same" is XLA's SAME in 3x3 convolutions and the max-pool, which differs
        where they stride, as in flax/examples/imagenet.
      stochastic_depth: probability that a training batch skips the last unit's residual; it rises linearly from the
        first unit on (Huang et al. 2016, equation 4: 1 - p_L).
      stochastic_depth_per: what is drawn for: "batch" as in that paper, or "example" ("drop path" in timm).
      features_only: give the stages' outputs instead of logits, and have no `head`; see `features.feature_info`.
      output_stride: pixels from one position of the last stage to the next; None: as the net is. A smaller one leaves
        out the strides of the last stages and dilates the kernels behind them instead, so that the same weights give
        the same values, at more positions (Chen et al. 2017, "DeepLab", section 3.1).
      head: what is behind the last stage: "classifier", or for segmentation "fcn" or "deeplabv3"; see `heads`.
      head_width: features in a head for segmentation; None: torchvision's.
      aux_head: in segmentation, whether stage 3 of 4 has an FCN's head, too, for a second loss in training.
      pool_size: positions on a side of the average pool, for images that are larger than those of training; see
        `layers.average_pool`. None: the pool holds all positions.
      remat: compute each unit's activations again in the backward pass instead of keeping them, for deep nets.
      scan: compile the units of a stage that are alike as one loop, for nets of hundreds of layers. On a CPU without
        the convolutions of `resnet_jax.kernels`, XLA's are several times slower inside a loop. It changes results by
        rounding alone.
      fold_norm: train 1x1 convolutions and the batch norm behind them, a bottleneck's last and the projection, as one
        layer that never holds the convolution's output; see `folded_norm`. For TPUs with one group of statistics a
        chip; docs/scaling.md has what it saves. On a CPU it replaces the C++ layers. Results differ by rounding alone.
      dtype: dtype of the computation; parameters and statistics are float32.
      precision: "default", "high" or "highest", of the products in convolutions and the classifier, on accelerators.

    Raises:
      UserError: at construction, for a value that is unknown or a combination that makes no sense.
    """

    stage_sizes: Sequence[int]
    widths: Sequence[int]
    block: str = "basic"
    stem: str = "imagenet"
    num_classes: int = 1000
    shortcut: str = "B"
    activation: str = "original"
    stride_on: str = "1x1"
    zero_init_last: bool = False
    init_mode: InitMode = "fan_in"
    bn_group_size: int = 0
    shortcut_scale: float = 1.0
    residual_scale: float = 1.0
    gate_bias: float = 0.0
    shortcut_dropout: float = 0.5
    shortcut_zeros: str = "sides"
    stem_norm: bool = True
    norm_epsilon: float = 1e-5
    padding: Padding = "symmetric"
    stochastic_depth: float = 0.0
    stochastic_depth_per: str = "batch"
    features_only: bool = False
    output_stride: int | None = None
    head: str = "classifier"
    head_width: int | None = None
    aux_head: bool = False
    pool_size: int | None = None
    groups: int = 1
    width_per_group: int = 64
    stem_width: int | None = None
    unit_dropout: float = 0.0
    remat: bool = False
    scan: bool = False
    fold_norm: bool = False
    dtype: Dtype = jnp.float32
    precision: str = "default"

    def __post_init__(self) -> None:
        check_fields(self)
        super().__post_init__()

    @property
    def task(self) -> str:
        """Returns what the net is for: "classification" or "segmentation"."""
        return "classification" if self.head == "classifier" else "segmentation"

    @nn.compact
    def __call__(
        self, x: Array, train: bool = False, stages: tuple[int, int] | None = None
    ) -> Array | tuple[Array, ...]:
        """Maps images (batch, height, width, channels) to logits (batch, num_classes), float32; see `num_classes`.

        With a head for segmentation the logits are (batch, height, width, num_classes). In training there are two of
        them with `aux_head`: (logits, those of the auxiliary head).

        With `stages`, (first, last) from 1, x goes through these alone, and what each of them gives is returned: a
        detector has the last ones see regions instead of images. The stem comes ahead of the first stage.

        With `features_only`, to a tuple of the stages' outputs, (batch, height / stride, width / stride, features), the
        finest first. The last one is what the classifier would average: behind the final BN and ReLU of a net with
        pre-activation, whose other stages end in a sum that neither has touched.

        In training, `batch_stats` must be mutable; the shortcut "dropout", `unit_dropout` and `stochastic_depth` also
        need an rng named "dropout".
        """
        order = ORDERS[self.activation]
        conv = partial(
            layers.conv, init_mode=self.init_mode, dtype=self.dtype, padding=self.padding, precision=self.precision
        )
        norm = partial(
            BatchNorm, group_size=self.bn_group_size, epsilon=self.norm_epsilon, dtype=self.dtype, fold=self.fold_norm
        )
        zeros = nn.initializers.zeros
        unit = partial(
            nn.remat(Unit, static_argnums=(2,)) if self.remat else Unit,  # 2: `train`, counted with self
            block=self.block,
            order=order,
            stride_on=self.stride_on,
            drop_per=self.stochastic_depth_per,
            groups=self.groups,
            width_per_group=self.width_per_group,
            dropout=self.unit_dropout,
            conv=conv,
            norm=norm,
            last_norm=partial(norm, scale_init=zeros) if self.zero_init_last else norm,
            shortcut=partial(
                Shortcut,
                kind=self.shortcut,
                shortcut_scale=self.shortcut_scale,
                residual_scale=self.residual_scale,
                gate_bias=self.gate_bias,
                dropout_rate=self.shortcut_dropout,
                zeros=self.shortcut_zeros,
            ),
        )

        ops = "bn+relu" if self.stem_norm else ""
        size_of_images = x.shape[1:3]
        start, end = stages or (1, len(self.stage_sizes))
        x = x.astype(self.dtype)
        if start == 1:
            x = Stem(self.stem, self.stem_width or self.widths[0], ops, self.padding, conv, norm, name="stem")(x, train)
        outputs = []
        plan = zip(self.stage_sizes, self.widths, stage_strides(self), strict=True)
        for i, (size, width, (strides, dilations)) in enumerate(plan, start=1):
            if not start <= i <= end:
                continue
            done, units = sum(self.stage_sizes[: i - 1]), sum(self.stage_sizes)
            # Unit l of L is dropped with l / L times the last one's probability.
            rates = tuple(self.stochastic_depth * (done + k) / units for k in range(1, size + 1))
            first, factory = i == 1 and self.stem_norm, partial(unit, width=width)
            stage = Stage(size, strides, first, factory, rates, dilations, self.scan, name=f"stage{i}")
            x = stage(x, train)
            outputs.append(x)
        if end == len(self.stage_sizes):
            x = Final(order.final, norm, name="final")(x, train)
        if self.features_only or stages:
            return (*outputs[:-1], x)
        if self.head != "classifier":
            return segment(self, outputs, x, size_of_images, conv, norm, train)
        # Averaged and classified in float32: a sum over 49 positions loses digits in bfloat16.
        x = average_pool(x.astype(jnp.float32), self.pool_size)
        return dense(self.num_classes, jnp.float32, "head", self.precision)(x) if self.num_classes else x


class Stem(nn.Module):
    """The first convolution, then `ops` (BN and ReLU): 7x7/2 and a 3x3/2 max-pool for ImageNet, 3x3 for CIFAR."""

    kind: str
    features: int
    ops: str
    padding: Padding
    conv: layers.ModuleFactory
    norm: layers.ModuleFactory

    @nn.compact
    def __call__(self, x: Array, train: bool) -> Array:
        imagenet = self.kind == "imagenet"
        x = self.conv(self.features, *((7, 2) if imagenet else (3, 1)), name="conv")(x)
        x = apply_order(self.ops, x, partial(self.norm, name="bn"), train)
        return max_pool(x, 3, strides=2, padding="SAME" if self.padding == "same" else 1) if imagenet else x


class Final(nn.Module):
    """What follows the last unit: BN and ReLU with full pre-activation, ReLU with ReLU-only, else nothing."""

    ops: str
    norm: layers.ModuleFactory

    @nn.compact
    def __call__(self, x: Array, train: bool) -> Array:
        return apply_order(self.ops, x, partial(self.norm, name="bn"), train)
